package policyfile

import (
	"fmt"
	"slices"
	"strings"

	"github.com/goccy/go-yaml/ast"

	"pim-ssh/broker/policy"
)

// locate finds the place a problem's path speaks of: the value if it is one scalar, else the key; where the path leaves
// what is written, the last step that is.
func locate(root ast.Node, path []string) place {
	found := where(root)
	node := root
	for _, step := range path {
		var next place
		node, next = descend(node, step)
		if node == nil {
			break
		}
		found = next
	}
	return found
}

// descend takes one step of a path and says where the child stands; nil when there is none.
func descend(node ast.Node, step string) (ast.Node, place) {
	switch node := node.(type) {
	case *ast.MappingNode:
		for _, pair := range node.Values {
			if key, is := pair.Key.(*ast.StringNode); is && key.Value == step {
				return pair.Value, beside(pair)
			}
		}
	case *ast.SequenceNode:
		for _, means := range []func(ast.Node, string) bool{sameText, sameKey, sameAccount, sameEntry, samePart, sameFallback, sameSpan} {
			if i := slices.IndexFunc(node.Values, func(item ast.Node) bool { return means(item, step) }); i >= 0 {
				return node.Values[i], where(node.Values[i])
			}
		}
	}
	return nil, place{}
}

// beside is where a pair's value stands if it is a scalar, else its key.
func beside(pair *ast.MappingValueNode) place {
	if _, is := pair.Value.(ast.ScalarNode); is {
		return where(pair.Value)
	}
	return position(pair.Key.GetToken())
}

// A path names a member of a list by its text, by a key without the comment it is written with, for a sudo rule by the
// account, and whatever else is a mapping or a span of hours by what it says.

func sameText(item ast.Node, member string) bool {
	text, is := item.(*ast.StringNode)
	return is && text.Value == member
}

func sameKey(item ast.Node, member string) bool {
	text, is := item.(*ast.StringNode)
	return is && strings.HasPrefix(text.Value, member+" ")
}

func sameAccount(item ast.Node, member string) bool {
	rule, is := item.(*ast.MappingNode)
	if !is {
		return false
	}
	as, _ := descend(rule, "as")
	return as != nil && sameText(as, member)
}

func sameEntry(item ast.Node, member string) bool { return said(item, (*reader).entry) == member }

func samePart(item ast.Node, member string) bool { return said(item, (*reader).part) == member }

func sameFallback(item ast.Node, member string) bool { return said(item, (*reader).fallback) == member }

// said reads a mapping again and returns what it says; its problems are told already.
func said[T fmt.Stringer](item ast.Node, read func(*reader, ast.Node) T) string {
	if _, is := item.(*ast.MappingNode); !is {
		return ""
	}
	return read(&reader{}, item).String()
}

func sameSpan(item ast.Node, member string) bool {
	text, is := item.(*ast.StringNode)
	if !is {
		return false
	}
	spans, _ := parseSpans(text.Value)
	return slices.ContainsFunc(spans, func(s policy.Span) bool { return s.String() == member })
}
