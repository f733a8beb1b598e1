package agent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"time"

	"pim-ssh/broker"
	"pim-ssh/broker/policy"
	"pim-ssh/broker/statement"
)

// sudoRule is one line of a grant's sudoers file, and what cvtsudoers must read back from it.
type sudoRule struct {
	Account  statement.Account // who runs sudo
	As       statement.Account
	NotAfter string // YYYYMMDDHHMMSSZ
	Command  policy.Command
}

// notAfter is the last second in which sudo still obeys the rule. The window is half open and sudo compares whole
// seconds with ≤, so it is the second before until.
func notAfter(until statement.Time) string {
	return (until - 1).Std().Format("20060102150405Z")
}

// sudoRules returns what a grant's file must mean: one rule per account and command, sorted by the role.
func sudoRules(g broker.Grant) []sudoRule {
	var rules []sudoRule
	for _, rule := range g.Sudo {
		for _, command := range rule.Commands {
			rules = append(rules, sudoRule{g.Account, rule.As, notAfter(g.Until), command})
		}
	}
	return rules
}

// renderSudoers writes the rules as sudo reads them. Only NOTAFTER is used (F7), and only typed values go in:
// every one was parsed by a grammar without sudoers specials, but is parsed again here, because this text runs as root.
func renderSudoers(stem broker.Stem, rules []sudoRule) ([]byte, error) {
	var b bytes.Buffer
	fmt.Fprintf(&b, "# pim-ssh grant %s; written by pim-hostd, removed when its window ends\n", stem.Grant())
	for _, r := range rules {
		if err := r.check(); err != nil {
			return nil, err
		}
		fmt.Fprintf(&b, "%s ALL=(%s) NOTAFTER=%s NOPASSWD: %s\n", r.Account, r.As, r.NotAfter, r.Command.Sudoers())
	}
	return b.Bytes(), nil
}

func (r sudoRule) check() error {
	_, errAccount := statement.ParseAccount(string(r.Account))
	_, errAs := statement.ParseAccount(string(r.As))
	_, errCommand := policy.ParseCommand(string(r.Command))
	_, errTime := time.Parse("20060102150405Z", r.NotAfter)
	if err := errors.Join(errAccount, errAs, errCommand, errTime); err != nil {
		return fmt.Errorf("sudo rule: %w", err)
	}
	return nil
}

// cvtUser, cvtHost … are cvtsudoers' JSON, read strictly: whatever we did not mean is an unknown name and refused.
type (
	cvtFile struct {
		Specs []cvtSpec `json:"User_Specs"`
	}
	cvtSpec struct {
		Users    []cvtUser    `json:"User_List"`
		Hosts    []cvtHost    `json:"Host_List"`
		Commands []cvtCommand `json:"Cmnd_Specs"`
	}
	cvtUser struct {
		Name string `json:"username"`
	}
	cvtHost struct {
		Name string `json:"hostname"`
	}
	cvtCommand struct {
		As      []cvtUser   `json:"runasusers"`
		Options []cvtOption `json:"Options"`
		Run     []cvtRun    `json:"Commands"`
	}
	cvtOption struct {
		NotAfter     string `json:"notafter,omitzero"`
		Authenticate *bool  `json:"authenticate,omitzero"`
		Setenv       *bool  `json:"setenv,omitzero"` // sudo's own consequence of ALL
	}
	cvtRun struct {
		Command string `json:"command"`
	}
)

// parseCvt reads cvtsudoers' JSON back into rules, and refuses everything a rule of ours does not say.
func parseCvt(data []byte) ([]sudoRule, error) {
	var file cvtFile
	if err := statement.DecodeStrict(data, &file); err != nil {
		return nil, err
	}
	var rules []sudoRule
	for _, spec := range file.Specs {
		if len(spec.Users) != 1 || len(spec.Commands) != 1 || !slices.Equal(spec.Hosts, []cvtHost{{"ALL"}}) {
			return nil, fmt.Errorf("reads as %d users, hosts %v and %d command lists", len(spec.Users), spec.Hosts, len(spec.Commands))
		}
		rule, err := spec.Commands[0].rule(spec.Users[0].Name)
		if err != nil {
			return nil, err
		}
		rules = append(rules, rule)
	}
	return rules, nil
}

func (c cvtCommand) rule(user string) (sudoRule, error) {
	if len(c.As) != 1 || len(c.Run) != 1 {
		return sudoRule{}, fmt.Errorf("reads as %d accounts and %d commands", len(c.As), len(c.Run))
	}
	r := sudoRule{Account: statement.Account(user), As: statement.Account(c.As[0].Name)}
	if path, bare := strings.CutSuffix(c.Run[0].Command, ` ""`); bare {
		r.Command = policy.Command(path)
	} else if r.Command = policy.Command(c.Run[0].Command); r.Command != policy.All && !strings.Contains(c.Run[0].Command, " ") {
		return sudoRule{}, fmt.Errorf("%q reads as any arguments at all", c.Run[0].Command)
	}
	password := true
	for _, o := range c.Options {
		switch {
		case o.NotAfter != "":
			r.NotAfter = o.NotAfter
		case o.Authenticate != nil:
			password = *o.Authenticate
		case o.Setenv == nil || *o.Setenv != (r.Command == policy.All):
			return sudoRule{}, errors.New("reads with an option that was not meant")
		}
	}
	if password {
		return sudoRule{}, errors.New("reads as asking for a password")
	}
	return r, nil
}

// Tools are the programs that read sudoers: paths from the machine.
type Tools struct {
	Visudo     string // /usr/sbin/visudo
	Cvtsudoers string // /usr/bin/cvtsudoers
}

// toolTimeout is how long one parser may take.
const toolTimeout = 2 * time.Second

// verify has sudo's own parsers read the text, and compares what they understood with what was meant.
func (t Tools) verify(ctx context.Context, text []byte, want []sudoRule) error {
	if _, err := run(ctx, text, t.Visudo, "-c", "-s", "-f", "-"); err != nil {
		return err
	}
	parsed, err := run(ctx, text, t.Cvtsudoers, "-c", "/dev/null", "-f", "json", "-")
	if err != nil {
		return err
	}
	got, err := parseCvt(parsed)
	if err != nil {
		return fmt.Errorf("%s: %w", t.Cvtsudoers, err)
	}
	if !slices.Equal(got, want) {
		return fmt.Errorf("%s understands %v, meant was %v", t.Cvtsudoers, got, want)
	}
	return nil
}

func run(ctx context.Context, stdin []byte, tool string, args ...string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, toolTimeout)
	defer cancel()
	command := exec.CommandContext(ctx, tool, args...)
	command.Env = []string{"LC_ALL=C", "PATH=/usr/sbin:/usr/bin:/sbin:/bin"}
	command.Stdin = bytes.NewReader(stdin)
	var errs bytes.Buffer
	command.Stderr = &errs
	out, err := command.Output()
	if err != nil {
		return nil, fmt.Errorf("%s: %w: %s", tool, err, bytes.TrimSpace(errs.Bytes()))
	}
	return out, nil
}

// sudoersMode is what sudo wants of a file it includes.
const sudoersMode = 0o440

// writeSudoers puts a grant's rules into force: rendered, read back by sudo's parsers, and only then renamed into
// place. A grant without sudo rules has no file.
func (t Tools) writeSudoers(ctx context.Context, dir string, g broker.Grant) error {
	rules := sudoRules(g)
	if len(rules) == 0 {
		return nil
	}
	text, err := renderSudoers(g.Stem, rules)
	if err != nil {
		return err
	}
	if err := t.verify(ctx, text, rules); err != nil {
		return fmt.Errorf("sudoers of %s: %w", g.ID, err)
	}
	return writeFile(dir+"/"+g.Stem.SudoersFile(), text, sudoersMode)
}
