package kinds

import (
	"errors"
	"math/big"
	"strconv"
	"strings"
)

// Quantities of resources: 100m, 1.5, 1Gi, 1e3. Each is one of three forms, which
// decides how it is written: decimal, binary (Ki, Mi, …) or with an exponent.

// Form of a quantity.
type Form byte

// The forms of quantities.
const (
	Decimal Form = iota
	Binary
	Exponent
)

var (
	binarySuffixes  = []string{"", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"}
	decimalSuffixes = []string{"n", "u", "m", "", "k", "M", "G", "T", "P", "E"} // 10^-9, 10^-6, …
)

// ErrQuantity says that a text is no quantity.
var ErrQuantity = errors.New("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")

// maxQuantity bounds what is read, so that no exponent costs memory.
const maxQuantity = 64

// ParseQuantity reads a quantity. More than nine decimal places are rounded away
// from zero, as in Kubernetes.
func ParseQuantity(s string) (*big.Rat, Form, error) {
	end := strings.IndexFunc(s, func(r rune) bool { return !strings.ContainsRune("+-.0123456789", r) })
	if end < 0 {
		end = len(s)
	}
	number, suffix := s[:end], s[end:]
	v, ok := new(big.Rat).SetString(number)
	if !ok || len(s) > maxQuantity || number != "" && strings.ContainsAny(number[1:], "+-") {
		return nil, 0, ErrQuantity
	}
	form, scale, ok := parseSuffix(suffix)
	if !ok {
		return nil, 0, ErrQuantity
	}
	v.Mul(v, scale)
	nano := new(big.Rat).Mul(v, power(10, 9))
	return v.Quo(new(big.Rat).SetInt(away(nano)), power(10, 9)), form, nil
}

func parseSuffix(s string) (form Form, scale *big.Rat, ok bool) {
	for i, suffix := range binarySuffixes[1:] {
		if s == suffix {
			return Binary, power(1024, i+1), true
		}
	}
	for i, suffix := range decimalSuffixes {
		if s == suffix {
			return Decimal, power(10, 3*i-9), true
		}
	}
	n, err := strconv.ParseInt(strings.TrimLeft(s, "eE"), 10, 8)
	return Exponent, power(10, int(n)), err == nil && (s[0] == 'e' || s[0] == 'E')
}

func power(base int64, exp int) *big.Rat {
	r := new(big.Rat).SetInt(new(big.Int).Exp(big.NewInt(base), big.NewInt(int64(max(exp, -exp))), nil))
	if exp < 0 {
		r.Inv(r)
	}
	return r
}

// away rounds to an integer, away from zero: what is asked for is never less.
func away(v *big.Rat) *big.Int {
	q, rest := new(big.Int).QuoRem(v.Num(), v.Denom(), new(big.Int))
	return q.Add(q, big.NewInt(int64(rest.Sign())))
}

// FormatQuantity writes a quantity as Kubernetes does: as few digits as there can
// be before a suffix, and none after a point.
func FormatQuantity(v *big.Rat, form Form) string {
	if v.Sign() == 0 {
		return "0"
	}
	n, base, unit := away(new(big.Rat).Mul(v, power(10, 9))), int64(1000), 0
	suffixes := decimalSuffixes
	if abs := new(big.Rat).Abs(v); form == Binary && v.IsInt() && abs.Cmp(power(1024, 1)) >= 0 {
		n, base, suffixes = v.Num(), 1024, binarySuffixes
	}
	for ; unit < len(suffixes)-1; unit++ {
		q, rest := new(big.Int).QuoRem(n, big.NewInt(base), new(big.Int))
		if rest.Sign() != 0 {
			break
		}
		n = q
	}
	suffix := suffixes[unit]
	if form == Exponent && suffix != "" {
		suffix = "e" + strconv.Itoa(3*unit-9)
	}
	return n.String() + suffix
}
