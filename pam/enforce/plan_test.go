package enforce

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"pim-ssh/broker/policy"
	"pim-ssh/broker/statement"
)

const ca = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKDBYuTm7bUvKSsr0e8s6Vg0o2H3K1lO7b9kOq3A6aZb"

var document = &policy.Document{
	Brokers: map[statement.BrokerName]policy.Broker{"b1": {CA: ca}},
	Roles: map[statement.RoleName]policy.Role{
		"db-admin": {
			Hosts:    policy.Selector{Labels: map[string]string{"tier": "db"}},
			Accounts: []statement.Account{"postgres"},
			Sudo:     []policy.SudoRule{{As: "root", Commands: []policy.Command{"/usr/bin/systemctl restart postgresql"}}},
		},
		"web-deploy": {Hosts: policy.Selector{Labels: map[string]string{"tier": "web"}}, Accounts: []statement.Account{"deploy"}},
	},
}

func TestPlanGoverns(t *testing.T) {
	for sentence, c := range map[string]struct {
		labels map[string]string
		want   []statement.Account
	}{
		"the accounts a role logs in as and runs as, on hosts it selects": {map[string]string{"tier": "db"}, []statement.Account{"postgres", "root"}},
		"nothing of a role that selects other hosts":                      {map[string]string{"tier": "web"}, []statement.Account{"deploy"}},
		"nobody on a host that no role reaches":                           {map[string]string{"tier": "mail"}, nil},
	} {
		t.Run(sentence, func(t *testing.T) {
			if diff := cmp.Diff(c.want, PlanFor(document, "h", c.labels, nil).Governed); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestAUidZeroAliasIsGovernedToo(t *testing.T) {
	p := Plan{Governed: []statement.Account{"root"}}.withAliases("root:x:0:0::/root:/bin/sh\ntoor:x:0:0::/root:/bin/sh\nalice:x:1000:1000::/:/bin/sh\n")
	if diff := cmp.Diff([]statement.Account{"root", "toor"}, p.Governed); diff != "" {
		t.Error(diff)
	}
}

func TestExemptAccounts(t *testing.T) {
	for sentence, c := range map[string]struct {
		exempt  Exempt
		refused bool
	}{
		"may run exact commands":            {Exempt{"backup", "root", []policy.Command{"/usr/bin/true"}}, false},
		"may not run ALL":                   {Exempt{"backup", "root", []policy.Command{policy.All}}, true},
		"must name at least one command":    {Exempt{"backup", "root", nil}, true},
		"may not be what a role logs in as": {Exempt{"postgres", "root", []policy.Command{"/usr/bin/true"}}, true},
	} {
		t.Run(sentence, func(t *testing.T) {
			p := PlanFor(document, "db1", map[string]string{"tier": "db"}, []Exempt{c.exempt})
			if err := p.Check(); (err != nil) != c.refused {
				t.Errorf("Check: %v, refused should be %v", err, c.refused)
			}
		})
	}
}

// The tools that will read the text are the oracle: visudo, and cvtsudoers for what it means.
func TestSudoersReadsAsMeant(t *testing.T) {
	p := PlanFor(document, "db1", map[string]string{"tier": "db"}, []Exempt{{"backup", "root", []policy.Command{"/usr/bin/rsync --server"}}})
	path := filepath.Join(t.TempDir(), "sudoers")
	if err := os.WriteFile(path, []byte(p.Sudoers()), 0o440); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("visudo", "-cqf", path).CombinedOutput(); err != nil {
		t.Fatalf("visudo: %v: %s\n%s", err, out, p.Sudoers())
	}
	out, err := exec.Command("cvtsudoers", "-e", "-f", "sudoers", path).CombinedOutput()
	if err != nil {
		t.Fatalf("cvtsudoers: %v: %s", err, out)
	}
	for _, want := range []string{"ALL, !#0 ALL = (ALL : ALL) !ALL", "backup ALL = (root) NOPASSWD: /usr/bin/rsync --server", "Defaults pam_acct_mgmt, pam_session", "!intercept"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("sudoers does not mean %q:\n%s", want, out)
		}
	}
	if deny, exempt := strings.Index(string(out), "!ALL"), strings.Index(string(out), "backup"); deny > exempt {
		t.Error("the deny must come before what it must not void: last match wins")
	}
}

func TestSSHDKeepsOurCAInsideMatch(t *testing.T) {
	text := PlanFor(document, "db1", map[string]string{"tier": "db"}, nil).SSHD()
	match := strings.Index(text, "Match User postgres,root\n")
	if match < 0 || strings.Contains(text[:match], "TrustedUserCAKeys") || !strings.HasSuffix(text, "Match all\n") {
		t.Errorf("CA outside Match, or Match left open:\n%s", text)
	}
	if strings.Contains(Plan{}.SSHD(), "CA") {
		t.Error("the zero plan trusts a CA")
	}
}
