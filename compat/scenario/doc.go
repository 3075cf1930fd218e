// Package scenario plays what the generated suite cannot: things that take time or
// need members to die. Each scenario is played against a store and gives lines of
// text in which nothing depends on chance; two stores must give the same lines.
package scenario
