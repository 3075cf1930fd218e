package resource

import (
	"math/big"
	"strings"

	"github.com/keelson-io/keelson/server/resource/object"
)

// Quantities of resources, as quotas count them: 100m, 1.5, 1Gi, 1e3.

var binarySuffixes = []string{"Ki", "Mi", "Gi", "Ti", "Pi", "Ei"}

var decimalSuffixes = map[string]int{"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}

// maxQuantity bounds what is read, so that no exponent costs memory.
const maxQuantity = 64

// parseQuantity reads a quantity in any form that JSON has it.
func parseQuantity(v any) (*big.Rat, bool) {
	s := object.Text(v)
	if v == nil || len(s) > maxQuantity {
		return nil, false
	}
	number, scale := s, new(big.Rat).SetInt64(1)
	if i := strings.LastIndexAny(s, "0123456789."); i >= 0 && !strings.ContainsAny(s[:i+1], "eE") {
		suffix := s[i+1:]
		number = s[:i+1]
		if exp, ok := decimalSuffixes[suffix]; ok {
			scale = power(10, exp)
		} else if exp, ok := indexOf(binarySuffixes, suffix); ok {
			scale = power(1024, exp+1)
		} else {
			return nil, false
		}
	} else if _, exp, ok := strings.Cut(strings.ToLower(s), "e"); ok && len(strings.TrimLeft(exp, "+-")) > 2 {
		return nil, false
	}
	r, ok := new(big.Rat).SetString(number)
	if !ok {
		return nil, false
	}
	return r.Mul(r, scale), true
}

func indexOf(list []string, s string) (int, bool) {
	for i, e := range list {
		if e == s {
			return i, true
		}
	}
	return 0, false
}

func power(base int64, exp int) *big.Rat {
	negative := exp < 0
	if negative {
		exp = -exp
	}
	n := new(big.Int).Exp(big.NewInt(base), big.NewInt(int64(exp)), nil)
	r := new(big.Rat).SetInt(n)
	if negative {
		r.Inv(r)
	}
	return r
}

// formatQuantity writes a quantity in the units of like: binary where that is,
// else decimal.
func formatQuantity(r *big.Rat, like string) string {
	if !r.IsInt() {
		milli := new(big.Rat).Mul(r, power(10, 3))
		n := new(big.Int).Quo(milli.Num(), milli.Denom())
		if new(big.Rat).SetInt(n).Cmp(milli) < 0 {
			n.Add(n, big.NewInt(1)) // what is used is never less than it is
		}
		return n.String() + "m"
	}
	n := new(big.Int).Set(r.Num())
	units, base := []string{"k", "M", "G", "T", "P", "E"}, int64(1000)
	if strings.HasSuffix(like, "i") {
		units, base = binarySuffixes, 1024
	}
	suffix := ""
	for _, unit := range units {
		q, rest := new(big.Int).QuoRem(n, big.NewInt(base), new(big.Int))
		if n.Sign() == 0 || rest.Sign() != 0 {
			break
		}
		n, suffix = q, unit
	}
	return n.String() + suffix
}
