package policy

import (
	"strings"
	"testing"

	"pim-ssh/broker/statement"
)

// quiet is a document of which nothing is warned.
func quietDocument() Document {
	d := lab()
	d.V = 2
	d.Stewards = Stewards{2, []statement.Person{"carol", "dave", "frank"}}
	changeRole(&d, "db-admin", func(r *Role) { r.Sudo = []SudoRule{{"root", []Command{"/usr/bin/systemctl restart postgresql"}}} })
	changeRole(&d, "root", func(r *Role) { r.Accounts, r.Sudo = []statement.Account{"ops"}, nil })
	changeRole(&d, "web-deploy", func(r *Role) { r.Approvals = Approvals{Count: 1, From: []Name{"approvers"}} })
	return d
}

const securityKey = "sk-ssh-ed25519@openssh.com AAAAGnNrLXNzaC1lZDI1NTE5QG9wZW5zc2guY29tAAAAIADZr+H6Gwd41OGWVAvpeanD9f+5wA5fodueLDgG85vGAAAABHNzaDo="

func TestWarnings(t *testing.T) {
	const now statement.Time = 1_797_000_000
	for what, test := range map[string]struct {
		change func(*Document)
		want   []string
	}{
		"nothing":                 {func(*Document) {}, nil},
		"one steward is enough":   {func(d *Document) { d.Stewards.Threshold = 1 }, []string{"stewards.threshold: is 1"}},
		"every steward is needed": {func(d *Document) { d.Stewards.Threshold = 3 }, []string{"stewards.threshold: is everybody"}},
		"no approval and a plain key": {onRole("web-deploy", func(r *Role) { r.Approvals, r.PlainKey = Approvals{None: true}, true }),
			[]string{"roles.web-deploy.plain_key: lets whoever copies"}},
		"an emergency role and a plain key": {onRole("web-deploy", func(r *Role) { r.Emergency, r.PlainKey = true, true }),
			[]string{"roles.web-deploy.plain_key: lets whoever copies one person's key file open an emergency role"}},
		"one approver": {onRole("web-deploy", func(r *Role) { r.Approvals.From = []Name{"bob"} }), []string{"roles.web-deploy.approvals.from: is bob alone"}},
		"one approver in a group": {func(d *Document) {
			d.Groups["security"] = []statement.Person{"dave"}
			changeRole(d, "web-deploy", func(r *Role) { r.And = []Part{{1, []Name{"security"}}} })
		}, []string{"roles.web-deploy.approvals.1 of security.from: is dave alone"}},
		"one approver, and who stands in": {onRole("web-deploy", func(r *Role) {
			r.Approvals.From, r.Fallback = []Name{"bob"}, []Fallback{{hour, []Name{"carol"}}}
		}), nil},
		"every approver is needed": {onRole("web-deploy", func(r *Role) { r.Approvals.Count = 3 }), []string{"roles.web-deploy.approvals.from: needs every one of bob, carol, gwen"}},
		"an active assignment": {onRole("web-deploy", func(r *Role) { r.Active = []Eligibility{{Who: "gwen"}} }),
			[]string{"roles.web-deploy.active.gwen: needs neither approval"}},
		"eligibility that ended": {onRole("web-deploy", func(r *Role) { r.Dated = []Eligibility{{Who: "gwen", Until: now}} }),
			[]string{"roles.web-deploy.eligible.gwen until 2026-12-11T14:40:00Z: ended"}},
		"nobody is left": {onRole("web-deploy", func(r *Role) { r.Eligible, r.Dated = nil, []Eligibility{{Who: "gwen", Until: now}} }),
			[]string{"roles.web-deploy.eligible.gwen until 2026-12-11T14:40:00Z: ended", "roles.web-deploy.eligible: names nobody who may still ask"}},
		"a dated one beside one for ever": {onRole("web-deploy", func(r *Role) { r.Dated = []Eligibility{{Who: "engineers", Until: now + 1}} }),
			[]string{"roles.web-deploy.eligible.engineers until 2026-12-11T14:40:01Z: changes nothing"}},
		"all as root":    {onRole("web-deploy", func(r *Role) { r.Sudo = []SudoRule{{"root", []Command{All}}} }), []string{"roles.web-deploy.sudo.root.commands.ALL: is everything"}},
		"all as another": {onRole("web-deploy", func(r *Role) { r.Sudo = []SudoRule{{"deploy", []Command{All}}} }), nil},
		"an editor": {onRole("web-deploy", func(r *Role) { r.Sudo = []SudoRule{{"deploy", []Command{"/usr/bin/vi /etc/motd"}}} }),
			[]string{"roles.web-deploy.sudo.deploy.commands./usr/bin/vi /etc/motd: is as good as ALL as deploy: vi starts a shell"}},
		"the same for fewer approvals": {onRole("web-deploy", func(r *Role) { r.Hosts, r.Accounts = Selector{Any: true}, []statement.Account{"ops"} }),
			[]string{"roles.web-deploy.approvals: needs 1 approval for logging in as ops, but root needs 2 approvals for that"}},
		"the same without the second factor": {func(d *Document) {
			changeRole(d, "root", func(r *Role) { r.Factors.Ask, r.Approvals.Count = TOTP, 1 })
			changeRole(d, "web-deploy", func(r *Role) { r.Hosts, r.Accounts = Selector{Any: true}, []statement.Account{"ops"} })
		}, []string{"roles.web-deploy.approvals: needs 1 approval for logging in as ops, but root needs 1 approval and a totp code for that"}},
		"the same for fewer approvals elsewhere": {func(d *Document) {
			changeRole(d, "root", func(r *Role) { r.Hosts = Selector{Labels: map[string]string{"tier": "db"}} })
			changeRole(d, "web-deploy", func(r *Role) { r.Accounts = []statement.Account{"ops"} })
		}, nil},
		"a login that covers a command for more approvals": {func(d *Document) {
			changeRole(d, "db-admin", func(r *Role) { r.Accounts = []statement.Account{"root"} })
			changeRole(d, "root", func(r *Role) { r.Sudo = []SudoRule{{"root", []Command{"/usr/bin/id"}}} })
		}, []string{"roles.db-admin.approvals: needs 1 approval for /usr/bin/id as root, but root needs 2"}},
		"an emergency role gives the same": {func(d *Document) {
			changeRole(d, "web-deploy", func(r *Role) {
				r.Hosts, r.Accounts, r.Emergency, r.Factors = Selector{Any: true}, []statement.Account{"ops"}, true, Factors{Ask: SecurityKey}
			})
		}, []string{"roles.web-deploy.eligible: needs security keys, and alice, erin without one cannot ask"}},
		"people without the key that the role wants": {func(d *Document) {
			d.People["bob"] = PersonEntry{Account: "bob", Keys: []statement.Key{securityKey}}
			changeRole(d, "web-deploy", func(r *Role) {
				r.Eligible, r.Factors = []Name{"bob", "engineers"}, Factors{Ask: SecurityKey, Approve: SecurityKey}
			})
		}, []string{"roles.web-deploy.eligible: needs security keys, and alice, erin without one cannot ask",
			"roles.web-deploy.approvals: needs security keys, and carol, gwen without one cannot approve"}},
	} {
		t.Run(what, func(t *testing.T) {
			doc := quietDocument()
			test.change(&doc)
			got := doc.Warnings(now)
			if len(got) != len(test.want) {
				t.Fatalf("got %d warnings, want %d:\n%v", len(got), len(test.want), got)
			}
			for i, want := range test.want {
				if !strings.HasPrefix(got[i].Error(), want) {
					t.Errorf("got  %s\nwant %s", got[i], want)
				}
			}
		})
	}
}

func TestCommandsThatGiveEverything(t *testing.T) {
	for command, gives := range map[Command]bool{
		"/usr/bin/less /var/log/syslog": true, "/usr/bin/vim": true, "/usr/bin/find /srv -name x": true, "/usr/bin/awk": true, "/usr/bin/python3.12 /opt/x.py": true,
		"/bin/bash": true, "/usr/bin/gcc-14 x.c": true, "/usr/bin/tar cf /tmp/x /srv": true, "/usr/bin/rsync -a a b": true, "/usr/bin/docker ps": true, "/usr/bin/tee /etc/motd": true,
		"/usr/bin/cp a b": true, "/bin/dd": true, "/usr/bin/chmod a+w /etc/motd": true, "/usr/bin/chown a,b": true, "/usr/bin/mount /srv": true, "/usr/bin/crontab -e": true,
		"/usr/sbin/visudo": true, "/usr/bin/apt upgrade": true, "/usr/bin/man ls": true, "/usr/bin/ssh db1": true, "/opt/odd/place/bash": true,
		"/usr/bin/systemctl": true, "/usr/bin/systemctl edit ssh": true, "/usr/bin/systemctl link /tmp/x.service": true, "/usr/bin/systemctl start /tmp/x.service": true,
		"/usr/bin/systemctl restart": true, "/usr/bin/systemctl -H db1 restart x": true, "/usr/bin/systemctl set-environment A=b": true,
		"/usr/bin/systemctl restart postgresql": false, "/usr/bin/systemctl --no-pager status postgresql": false, "/usr/bin/systemctl daemon-reload": false,
		"/usr/bin/env": true, "/usr/bin/env LANG=C /usr/bin/id": false, "/usr/bin/env LD_PRELOAD=/tmp/x.so /usr/bin/id": true, "/usr/bin/env id": true,
		"/usr/bin/env /usr/bin/env /bin/sh": true, "/usr/bin/env -i /usr/bin/id": true,
		All: false, "/usr/bin/id": false, "/usr/bin/pg_dump": false, "/usr/local/bin/deploy": false, "/usr/bin/journalctl -u x": false,
	} {
		if why := escape(command); (why != "") != gives {
			t.Errorf("%s: %q", command, why)
		}
	}
}
