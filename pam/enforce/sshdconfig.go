package enforce

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// sshdConfig is what an sshd reads when it is told of no other file.
const sshdConfig = "/etc/ssh/sshd_config"

// directive is one line of an sshd configuration.
type directive struct {
	file    string
	line    int
	keyword string // lower case, and by the name that sshd -T uses
	value   string
	match   string // the criteria of the Match that it stands in; empty above the first
}

func (d directive) where() string { return d.file + " line " + strconv.Itoa(d.line) }

// renamed are keywords that sshd still takes by an older name.
var renamed = map[string]string{
	"challengeresponseauthentication": "kbdinteractiveauthentication",
	"skeyauthentication":              "kbdinteractiveauthentication",
	"dsaauthentication":               "pubkeyauthentication",
}

// maxIncludes is how deep sshd itself follows Include.
const maxIncludes = 16

// directives reads a configuration in the order in which sshd does: a value in a Match goes before one outside, and of those
// in a Match the first counts.
func directives(file string) ([]directive, error) { return include(file, "", 0) }

func include(file, match string, depth int) ([]directive, error) {
	if depth > maxIncludes {
		return nil, errors.New(file + ": included too deep")
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var out []directive
	number := 0
	for line := range strings.Lines(string(text)) {
		number++
		d := parseDirective(line)
		d.file, d.line = file, number
		switch d.keyword {
		case "":
		case "match":
			match = d.value
		case "include":
			inner, err := includeAll(d.value, match, depth+1)
			if err != nil {
				return nil, err
			}
			out = append(out, inner...)
		default:
			d.match = match
			out = append(out, d)
		}
	}
	return out, nil
}

func includeAll(patterns, match string, depth int) ([]directive, error) {
	var out []directive
	for _, pattern := range strings.Fields(patterns) {
		pattern = strings.Trim(pattern, `"`)
		if !filepath.IsAbs(pattern) {
			pattern = filepath.Join("/etc/ssh", pattern)
		}
		files, err := filepath.Glob(pattern)
		if err != nil {
			return nil, fmt.Errorf("include %s: %w", pattern, err)
		}
		for _, file := range files {
			inner, err := include(file, match, depth)
			if err != nil {
				return nil, err
			}
			out = append(out, inner...)
		}
	}
	return out, nil
}

// parseDirective reads `Keyword value`, `Keyword=value` and `"Keyword" value`; a comment has no keyword.
func parseDirective(line string) directive {
	line = strings.TrimSpace(line)
	if line == "" || line[0] == '#' {
		return directive{}
	}
	end := strings.IndexAny(line, " \t=")
	if end < 0 {
		end = len(line)
	}
	keyword := strings.ToLower(strings.Trim(line[:end], `"`))
	if now, old := renamed[keyword]; old {
		keyword = now
	}
	value, _, _ := strings.Cut(strings.TrimLeft(line[end:], " \t="), " #")
	return directive{keyword: keyword, value: strings.Trim(strings.TrimSpace(value), `"`)}
}

// verifyFirst sees that no Match which sshd reads before our drop-in says something else: `sshd -T` asks about one
// connection, and that Match may be about another.
func (p Plan) verifyFirst(config string, all []directive) error {
	if len(p.Governed) == 0 {
		return nil
	}
	if !slices.ContainsFunc(all, func(d directive) bool { return d.file == sshdDropIn }) {
		return problem(config+" does not include "+sshdDropIn, "make this the first line of "+config+": Include /etc/ssh/sshd_config.d/*.conf")
	}
	ours := map[string]string{}
	for _, kv := range sshdKeywords {
		ours[strings.ToLower(kv[0])] = kv[1]
	}
	for _, d := range all {
		switch want, cares := ours[d.keyword]; {
		case d.file == sshdDropIn && d.match != "" && !strings.EqualFold(d.match, "all"):
			return problem(config+" includes "+sshdDropIn+" for some connections only", "move its Include line before the first Match")
		case d.file == sshdDropIn:
			return nil
		case cares && d.match != "" && !sameValue(strings.ToLower(d.value), strings.ToLower(want)):
			return problem(fmt.Sprintf("%s: %s %s, in Match %s, is read before %s and overrules it", d.where(), d.keyword, d.value, d.match, sshdDropIn),
				"take the line out of "+d.file+", or move that Match behind "+sshdDropIn)
		}
	}
	return nil
}

// verifyCA sees that our CA, by whatever file, is trusted in our drop-in only (FACTS F17).
func (p Plan) verifyCA(all []directive) error {
	for _, d := range all {
		if d.keyword == "trustedusercakeys" && d.file != sshdDropIn && p.holdsCA(d.value) {
			return problem(d.where()+": TrustedUserCAKeys "+d.value+" lets certificates of our CA into accounts that no role reaches here",
				"take the line out of "+d.file+", or our key out of "+d.value)
		}
	}
	return nil
}

func (p Plan) holdsCA(file string) bool {
	text, err := os.ReadFile(file)
	if err != nil {
		return file == caFile // an unreadable one lets nobody in
	}
	for _, key := range p.CAs {
		if fields := strings.Fields(string(key)); len(fields) > 1 && strings.Contains(string(text), fields[1]) {
			return true
		}
	}
	return file == caFile
}
