package enforce

import (
	"os"
	"slices"
	"strings"
)

// door is a PAM service by which somebody becomes a governed account, and the phases in which it must ask us: account
// refuses, session puts the process into its grant's unit.
type door struct {
	service string
	phases  []string
}

var doors = []door{
	{"sshd", []string{"account", "session"}},
	{"sudo", []string{"account", "session"}},
	{"sudo-i", []string{"account", "session"}},
	{"su", []string{"account"}},
	{"su-l", []string{"account"}},
	{"login", []string{"account"}},
	{"polkit-1", []string{"account"}},
	{"cron", []string{"account"}},
	{"atd", []string{"account"}},
}

// pamLine is one line of a stack, and the file it stands in.
type pamLine struct{ file, text string }

// primary is how Debian's own session stacks begin: pam_deny, of which sudo and sshd think little (FACTS F3), is jumped over.
var primary = []string{"session [default=1] pam_permit.so", "session requisite pam_deny.so", "session required pam_permit.so"}

// verifyDoors follows each door to our module, through its own file and what that includes.
func verifyDoors() error {
	for _, d := range doors {
		for _, phase := range d.phases {
			lines, err := phaseOf(d.service, phase, 0)
			if err != nil {
				return err
			}
			if err := reaches(d.service, phase, lines); err != nil {
				return err
			}
		}
	}
	return nil
}

// reaches sees that no line before ours may end the phase, or jump over us.
func reaches(service, phase string, lines []pamLine) error {
	for i := 0; i < len(lines); i++ {
		line := lines[i]
		if line.text == phase+" required pam_pim.so" {
			return nil
		}
		if isPrimary(lines[i:]) {
			i += len(primary) - 1
			continue
		}
		if mayEnd(line.text, phase) {
			return problem(line.file+": \""+line.text+"\" may end "+service+"'s "+phase+" phase before pam_pim.so is asked",
				"move it in "+line.file+" behind the line that includes common-"+phase)
		}
	}
	file := "/etc/pam.d/" + service
	return problem(file+" does not call pam_pim.so in its "+phase+" phase", "put this line back into "+file+": @include common-"+phase)
}

func isPrimary(lines []pamLine) bool {
	return len(lines) >= len(primary) && slices.EqualFunc(lines[:len(primary)], primary, func(l pamLine, text string) bool { return l.text == text })
}

// mayEnd reports whether a line's control can keep the lines after it from being read. Where an account phase ends by a
// failure it refuses; a session phase's failure is passed over by sshd, and by sudo for one of the codes.
func mayEnd(text, phase string) bool {
	_, control, _ := strings.Cut(text, " ")
	if values, bracketed := strings.CutPrefix(control, "["); bracketed {
		values, _, _ = strings.Cut(values, "]")
		return slices.ContainsFunc(strings.Fields(values), func(pair string) bool {
			_, action, _ := strings.Cut(pair, "=")
			return !slices.Contains([]string{"ok", "ignore", "bad", "reset"}, action) && (action != "die" || phase == "session")
		})
	}
	control, _, _ = strings.Cut(control, " ")
	return control != "required" && control != "optional" && (control != "requisite" || phase == "session")
}

// phaseOf is one phase of a service as PAM reads it: a service without a file is what `other` says.
func phaseOf(service, phase string, depth int) ([]pamLine, error) {
	if depth > maxIncludes {
		return nil, problem("/etc/pam.d/"+service+": included too deep", "look for files in /etc/pam.d that include each other")
	}
	file, lines, err := pamFile(service)
	if err != nil {
		return nil, err
	}
	var out []pamLine
	for _, text := range lines {
		words := strings.Fields(strings.TrimPrefix(text, "-"))
		included := ""
		switch {
		case words[0] == "@include" && len(words) > 1:
			included = words[1]
		case words[0] != phase || len(words) < 3:
			continue
		case words[1] == "include" || words[1] == "substack":
			included = words[2]
		default:
			out = append(out, pamLine{file, strings.Join(words, " ")})
			continue
		}
		inner, err := phaseOf(included, phase, depth+1)
		if err != nil {
			return nil, err
		}
		out = append(out, inner...)
	}
	return out, nil
}

// pamFile finds a service where libpam does.
func pamFile(service string) (file string, lines []string, err error) {
	for _, file = range []string{"/etc/pam.d/" + service, "/usr/lib/pam.d/" + service, "/etc/pam.d/other"} {
		lines, err = stackIn(file)
		if !os.IsNotExist(err) {
			return file, lines, err
		}
	}
	return file, nil, err
}
