package server

import "crypto/rand"

// secretBytes is the length of the cluster's token secret and of other keys.
const secretBytes = 32

// randomBytes draws a secret. Nothing that members must agree on depends on it,
// unless it travels through the log.
func randomBytes() []byte {
	b := make([]byte, secretBytes)
	rand.Read(b) // never fails, says its documentation
	return b
}

// fillRandom fills b with what nobody can guess.
func fillRandom(b []byte) {
	rand.Read(b) // never fails, says its documentation
}
