package policyfile

import (
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/token"

	"pim-ssh/broker/policy"
	"pim-ssh/broker/statement"
)

// field is one key that may stand in a mapping, and what reads its value.
type field struct {
	name     string
	required bool
	read     func(value ast.Node)
}

// entry is one key of a mapping as written.
type entry struct {
	key   string
	at    place
	value ast.Node
}

// object reads a mapping with a closed set of keys. Keys in later are known but not enforced yet; every other key, a
// second use of one, and the lack of a required one are problems.
func (r *reader) object(n ast.Node, what string, later []string, fields ...field) {
	entries, ok := r.entries(n, what)
	if !ok {
		return
	}
	var names, given []string
	for _, f := range fields {
		names = append(names, f.name)
	}
	for _, e := range entries {
		given = append(given, e.key)
		known := slices.Index(names, e.key)
		switch {
		case known >= 0:
			fields[known].read(e.value)
		case slices.Contains(later, e.key):
			r.say(e.at, "%s is not enforced yet: remove it, nothing would act on it", e.key)
		default:
			given = append(given, r.unknown(e, names))
		}
	}
	for _, f := range fields {
		if f.required && !slices.Contains(given, f.name) {
			r.say(where(n), "missing key %q in %s", f.name, what)
		}
	}
}

// unknown reports a key that is not one of names and returns the one that was meant, so that its lack is no news.
func (r *reader) unknown(e entry, names []string) string {
	name, found := policy.Nearest(e.key, names)
	if found {
		r.say(e.at, "unknown key %q: did you mean %q?", shortened(e.key), name)
		return name
	}
	r.say(e.at, "unknown key %q: known here are %s", shortened(e.key), strings.Join(names, ", "))
	return ""
}

// entries returns a mapping's keys in the order written, each once.
func (r *reader) entries(n ast.Node, what string) ([]entry, bool) {
	mapping, is := n.(*ast.MappingNode)
	if !is {
		r.say(where(n), "%s must be a mapping (key: value), not %s", what, kindOf(n))
		return nil, false
	}
	var list []entry
	firsts := map[string]int{}
	for _, pair := range mapping.Values {
		at := position(pair.Key.GetToken())
		key, is := pair.Key.(*ast.StringNode)
		if !is {
			r.say(at, "key %s is %s: put names in quotes", shortened(pair.Key.GetToken().Value), kindOf(pair.Key))
			continue
		}
		if first, twice := firsts[key.Value]; twice {
			r.say(at, "%q stands twice: first in line %d", shortened(key.Value), first)
			continue
		}
		firsts[key.Value] = at.line
		list = append(list, entry{key: key.Value, at: at, value: pair.Value})
	}
	return list, true
}

// named reads a mapping whose keys are names.
func (r *reader) named(n ast.Node, what string, read func(e entry)) {
	entries, _ := r.entries(n, what)
	for _, e := range entries {
		read(e)
	}
}

// text reads one scalar that is text.
func (r *reader) text(n ast.Node, what string) (string, bool) {
	scalar, is := n.(*ast.StringNode)
	if !is {
		r.say(where(n), "%s must be text, not %s: put names in quotes", what, kindOf(n))
		return "", false
	}
	return scalar.Value, true
}

// texts reads a list of text, each member once, and returns it sorted.
func texts[T ~string](r *reader, n ast.Node, what string, parse func(string) (T, error)) []T {
	sequence, is := n.(*ast.SequenceNode)
	if !is {
		r.say(where(n), "%s must be a list such as [a, b], not %s", what, kindOf(n))
		return nil
	}
	list, held := []T{}, map[T]bool{}
	for _, item := range sequence.Values {
		written, is := r.text(item, "each of "+what)
		if !is {
			continue
		}
		member, err := parse(written)
		switch {
		case err != nil:
			r.say(where(item), "%v", err)
		case held[member]:
			r.say(where(item), "%q stands twice in %s", shortened(string(member)), what)
		default:
			list, held[member] = append(list, member), true
		}
	}
	slices.Sort(list)
	return list
}

// oneOf reads text by a strict parser.
func oneOf[T any](r *reader, n ast.Node, what string, into *T, parse func(string) (T, error)) {
	written, is := r.text(n, what)
	if !is {
		return
	}
	value, err := parse(written)
	if err != nil {
		r.say(where(n), "%v", err)
		return
	}
	*into = value
}

var numberGrammar = regexp.MustCompile(`^(0|[1-9][0-9]{0,3})$`)

// number reads a whole number below 10000 in plain decimal digits.
func (r *reader) number(n ast.Node, what string) int {
	written := ""
	if scalar, is := n.(*ast.IntegerNode); is {
		written = scalar.GetToken().Value
	}
	if !numberGrammar.MatchString(written) {
		r.say(where(n), "%s must be a whole number such as 2", what)
		return 0
	}
	value, err := strconv.Atoi(written)
	if err != nil {
		r.say(where(n), "%s: %v", what, err)
	}
	return value
}

var durationGrammar = regexp.MustCompile(`^([1-9][0-9]{0,6})([smhd])$`)

var units = map[string]statement.Seconds{"s": 1, "m": 60, "h": 3600, "d": statement.Day}

// duration reads "90s", "15m", "4h" or "90d".
func (r *reader) duration(n ast.Node, what string) statement.Seconds {
	written := ""
	if scalar, is := n.(*ast.StringNode); is {
		written = scalar.Value
	}
	length, fits := parseDuration(written)
	if !fits {
		r.say(where(n), "%s must be a number with a unit, such as 90s, 15m, 4h or 7d", what)
	}
	return length
}

func parseDuration(written string) (statement.Seconds, bool) {
	parts := durationGrammar.FindStringSubmatch(written)
	if parts == nil {
		return 0, false
	}
	count, err := strconv.Atoi(parts[1])
	return statement.Seconds(count) * units[parts[2]], err == nil
}

// kindOf names what a value is, for people.
func kindOf(n ast.Node) string {
	switch n.(type) {
	case nil, *ast.NullNode:
		return "nothing"
	case *ast.MappingNode:
		return "a mapping"
	case *ast.SequenceNode:
		return "a list"
	case *ast.StringNode:
		return "text"
	case *ast.BoolNode:
		return "true or false"
	case *ast.IntegerNode, *ast.FloatNode, *ast.InfinityNode, *ast.NanNode:
		return "a number"
	}
	return "something else"
}

func position(t *token.Token) place { return place{t.Position.Line, t.Position.Column} }

// where is the place a reader would point at: the first key of a block mapping, the bracket of a flow one.
func where(n ast.Node) place {
	switch n := n.(type) {
	case *ast.MappingNode:
		if !n.IsFlowStyle && len(n.Values) > 0 {
			return position(n.Values[0].Key.GetToken())
		}
		return position(n.Start)
	case *ast.SequenceNode:
		return position(n.Start)
	}
	return position(n.GetToken())
}

func shortened(s string) string {
	if len(s) > 60 {
		return s[:60] + "…"
	}
	return s
}
