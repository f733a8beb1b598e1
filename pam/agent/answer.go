package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/crypto/ssh"

	"pim-ssh/broker"
	"pim-ssh/broker/policy"
	"pim-ssh/broker/statement"
	"pim-ssh/certs"
	"pim-ssh/pam/wire"
)

// ruling is a verdict with its reasons. The zero ruling denies.
type ruling struct {
	allow  bool
	left   time.Duration // of the window, on an allowance under a grant
	grant  broker.Stem   // the grant it stands under, when there is one
	placed session       // the session that the asking process was put into; its Stem is empty when it was put nowhere
	runAs  string        // beside placed, under account: what its grants run commands as
	then   func()        // what is left to do once the answer is given; may be nil
	why    error         // for the journal, on a denial
	hint   string        // for the person, on a denial: the next thing to type
}

func deny(why error, hint string) ruling { return ruling{why: why, hint: hint} }

// opening is how long a question waits for a grant that is being opened at that moment.
const opening = 500 * time.Millisecond

// answer decides one question, and returns the ruling as well: what is to be done once the answer is given. It never fails:
// what it cannot decide it denies.
func (a *Agent) answer(ctx context.Context, q wire.Question, p *peer) (wire.Answer, ruling) {
	a.knocked()
	switch q := q.(type) {
	case *wire.Account:
		r := a.account(ctx, q, p)
		return a.say(q.Service, q.User, p, r), r
	case *wire.Open:
		r := a.openSession(ctx, q, p)
		return a.say(q.Service, q.User, p, r), r
	case *wire.Principals:
		return a.principals(ctx, q, p), ruling{}
	default:
		return wire.Answer{}, ruling{}
	}
}

// say puts a ruling into words for PAM. A host that only observes refuses nothing, and says what it would refuse.
func (a *Agent) say(service, user string, p *peer, r ruling) wire.Answer {
	if r.allow {
		answer := wire.Answer{Allow: true, Seconds: uint32(max(0, r.left/time.Second))}
		if r.runAs != "" && r.placed.Stem != "" {
			answer.Session, answer.RunAs = r.placed.cgroup(), r.runAs
		}
		return answer
	}
	account, odd := statement.ParseAccount(user) // a name outside the grammar is in the text only, quoted
	log := a.Log.With("service", service, "account", user, "pid", p.PID, "uid", p.real, "why", r.why)
	if !a.enforcing() {
		if service != "sshd" || odd != nil || a.governs(account) { // an enforcing host asks about no other login
			log.Info("would refuse: this host only observes")
		}
		return wire.Answer{Allow: true}
	}
	log.Warn("refused", "hint", r.hint)
	a.reports.refused(service, account, r.grant, r.why.Error())
	return wire.Answer{Text: forPerson(r)}
}

// maxText keeps an answer well below wire.MaxAnswer.
const maxText = 600

// forPerson is one line: why not, and what to type next.
func forPerson(r ruling) string {
	text := "pim-ssh: " + r.why.Error()
	if r.hint != "" {
		text += "; try: " + r.hint
	}
	text = strings.Map(func(c rune) rune {
		if c < ' ' || c == 0x7f || c == utf8.RuneError {
			return ' '
		}
		return c
	}, text)
	for len(text) > maxText {
		_, size := utf8.DecodeLastRuneInString(text)
		text = text[:len(text)-size]
	}
	return text
}

// enforcing is asked of the disk each time, in the C module's own words: only a state directory that is plainly absent
// means that this host observes; one that cannot be read does not.
func (a *Agent) enforcing() bool {
	_, err := os.Lstat(a.Enforcing)
	return !errors.Is(err, fs.ErrNotExist)
}

// account rules on PAM's account phase: may this login or sudo run go on at all?
func (a *Agent) account(ctx context.Context, q *wire.Account, p *peer) ruling {
	switch q.Service {
	case "sudo", "sudo-i":
		return a.accountSudo(q, p)
	case "sshd":
		return a.accountLogin(ctx, statement.Account(q.User))
	default:
		return deny(fmt.Errorf("%s cannot enter the governed account %q: roles work through ssh and sudo", q.Service, q.User),
			a.suggest(statement.Account(q.User), ""))
	}
}

// caller is who runs sudo.
type caller struct {
	uid    uint32
	exempt bool // by host.yaml, for named commands
}

// caller names who runs sudo: the kernel's real uid, which must be the uid of the name PAM was given.
func (a *Agent) caller(name string, p *peer) (caller, error) {
	account, err := statement.ParseAccount(name)
	if err != nil {
		return caller{}, err
	}
	uid, err := a.Lookup(account)
	switch {
	case err != nil:
		return caller{}, fmt.Errorf("account %s: %w", account, err)
	case uid != p.real:
		return caller{}, fmt.Errorf("account %s has uid %d, but the caller's real uid is %d", account, uid, p.real)
	case uid == 0:
		return caller{}, fmt.Errorf("account %s is uid 0, which holds no grants", account)
	}
	return caller{uid: uid, exempt: slices.Contains(a.Exempt, account)}, nil
}

// sudoGrants returns the grants under which the uid may start a sudo run now, those that lapse first in front; when
// there is none the ruling says why not.
func (a *Agent) sudoGrants(uid uint32, name statement.Account) ([]view, ruling) {
	s := a.ledger.snapshot(a.Clock.now())
	var live []view
	why := fmt.Errorf("%s holds no live grant with sudo on %s", name, s.host.Name)
	var left time.Duration
	for _, v := range a.ledger.grants() {
		if len(v.Sudo) == 0 || elsewhere(v.Grant, s.host) != nil {
			continue
		}
		if own, err := a.uidOf(v.Account, name, uid); err != nil || own != uid {
			continue
		}
		remaining, err := a.live(s, v)
		if err != nil {
			why = err
			continue
		}
		if len(live) == 0 || remaining < left {
			left = remaining
		}
		live = append(live, v)
	}
	if len(live) == 0 {
		return nil, deny(why, a.suggest(name, ""))
	}
	return live, ruling{allow: true, left: left, grant: live[0].Stem}
}

// uidOf resolves an account, which costs nothing when it is the one whose uid is known already.
func (a *Agent) uidOf(account, known statement.Account, uid uint32) (uint32, error) {
	if account == known {
		return uid, nil
	}
	return a.Lookup(account)
}

// live reports why a grant starts nothing at this moment, or how long what starts now may last. It asks everything: the rule,
// this host's freshness, and that unit, reaper and sudoers stand.
func (a *Agent) live(s snapshot, v view) (time.Duration, error) {
	if err := s.mayStart(v.Grant, a.Clock); err != nil {
		return 0, err
	}
	v.gate.RLock()
	defer v.gate.RUnlock()
	if v.opened == nil {
		return 0, fmt.Errorf("grant %s: %w", v.ID, errNotOpen)
	}
	if a.Clock.remaining(v.opened.end) <= 0 {
		return 0, fmt.Errorf("grant %s lapsed", v.ID)
	}
	return a.Clock.remaining(v.opened.last), nil
}

var errNotOpen = errors.New("its unit and reaper do not stand yet: try again in a moment")

// liveSoon is live, but waits a moment for a grant that is just being opened.
func (a *Agent) liveSoon(ctx context.Context, v view) (time.Duration, error) {
	left, err := a.live(a.ledger.snapshot(a.Clock.now()), v)
	if !errors.Is(err, errNotOpen) {
		return left, err
	}
	ctx, cancel := context.WithTimeout(ctx, opening)
	defer cancel()
	a.awaitRound(ctx)
	return a.live(a.ledger.snapshot(a.Clock.now()), v)
}

// accountLogin allows sshd to go on when anybody holds a live grant for the account: whose certificate it is, sshd
// tells only in open_session (F4).
func (a *Agent) accountLogin(ctx context.Context, account statement.Account) ruling {
	s := a.ledger.snapshot(a.Clock.now())
	why := fmt.Errorf("nobody holds a live grant for %q on %s", account, s.host.Name)
	for _, v := range a.ledger.grants() {
		if !slices.Contains(v.Accounts, account) || elsewhere(v.Grant, s.host) != nil {
			continue
		}
		left, err := a.liveSoon(ctx, v)
		if err == nil {
			return ruling{allow: true, left: left, grant: v.Stem}
		}
		why = err
	}
	return deny(why, a.suggest("", account))
}

// principals answers sshd's AuthorizedPrincipalsCommand. Observing or not, only a certificate that a live grant calls
// for gets a principal: this socket gives, it never merely fails to refuse.
func (a *Agent) principals(ctx context.Context, q *wire.Principals, p *peer) wire.Answer {
	v, err := a.judgePrincipals(ctx, q)
	if err == nil {
		return wire.Answer{Allow: true, Principal: v.Stem.Principal()}
	}
	account, _ := statement.ParseAccount(q.Account)
	a.Log.Warn("certificate refused", "account", q.Account, "pid", p.PID, "why", err)
	a.reports.refused("sshd", account, "", err.Error())
	return wire.Answer{Text: forPerson(deny(err, a.suggest("", account)))}
}

func (a *Agent) judgePrincipals(ctx context.Context, q *wire.Principals) (view, error) {
	cert, err := certs.Parse([]byte(q.KeyType + " " + q.Certificate))
	if err != nil {
		return view{}, err
	}
	if ca, err := statement.KeyOf(cert.SignatureKey); err != nil || !sameKey(ca, q.CA) {
		return view{}, errors.New("sshd names another CA than the certificate")
	}
	return a.judgeCertificate(ctx, statement.Account(q.Account), cert)
}

// sameKey compares a key with sshd's %K: the base64, with or without a type before it.
func sameKey(key statement.Key, said string) bool {
	_, blob, _ := strings.Cut(string(key), " ")
	return said == blob || said == string(key)
}

// judgeCertificate finds the grant a certificate names and holds everything about the certificate to it.
func (a *Agent) judgeCertificate(ctx context.Context, account statement.Account, cert *ssh.Certificate) (view, error) {
	if len(cert.ValidPrincipals) != 1 {
		return view{}, fmt.Errorf("certificate has %d principals, want the grant's one", len(cert.ValidPrincipals))
	}
	stem, err := broker.ParsePrincipal(cert.ValidPrincipals[0])
	if err != nil {
		return view{}, fmt.Errorf("certificate: principal %.60q is no grant's", cert.ValidPrincipals[0])
	}
	v, err := a.ledger.named(stem)
	if err != nil {
		return view{}, err
	}
	if !slices.Contains(v.Accounts, account) {
		return view{}, fmt.Errorf("grant %s does not log in as %q", v.ID, account)
	}
	s := a.ledger.snapshot(a.Clock.now())
	want := certs.Want{Principal: v.Stem.Principal(), Keys: v.Keys, From: v.From, Until: v.certified, CAs: s.chain.Current().CAKeys()}
	if err := certs.Check(cert, want, s.now); err != nil {
		return view{}, fmt.Errorf("grant %s: %w", v.ID, err)
	}
	_, err = a.liveSoon(ctx, v)
	return v, err
}

// authCertificate reads sshd's SSH_AUTH_INFO_0, which must be one line: publickey and one certificate.
func authCertificate(info string) (*ssh.Certificate, error) {
	line, rest, _ := strings.Cut(info, "\n")
	method, key, _ := strings.Cut(line, " ")
	if method != "publickey" || rest != "" {
		return nil, errors.New("a governed account is entered by one certificate and nothing else")
	}
	return certs.Parse([]byte(key))
}

// governs reports whether a role that reaches this host gives the account.
func (a *Agent) governs(account statement.Account) bool {
	s := a.ledger.snapshot(a.Clock.now())
	for _, role := range s.chain.Current().Roles {
		runsAs := func(rule policy.SudoRule) bool { return rule.As == account }
		if role.Hosts.Selects(s.host.Name, s.host.Labels) && (slices.Contains(role.Accounts, account) || slices.ContainsFunc(role.Sudo, runsAs)) {
			return true
		}
	}
	return false
}

// suggest names what to type: a role here that the login's person may ask for, or any role that reaches the account.
func (a *Agent) suggest(login, account statement.Account) string {
	s := a.ledger.snapshot(a.Clock.now())
	doc := s.chain.Current()
	var fitting []string
	for name, role := range doc.Roles {
		if !role.Hosts.Selects(s.host.Name, s.host.Labels) || account != "" && !slices.Contains(role.Accounts, account) {
			continue
		}
		mine := login == "" || len(role.Sudo) > 0 && slices.ContainsFunc(doc.Members(role.Eligible), func(p statement.Person) bool {
			return doc.People[p].Account == login
		})
		if mine {
			fitting = append(fitting, "pim-ssh request "+string(name)+"@"+string(s.host.Name))
		}
	}
	if len(fitting) == 0 {
		return "pim-ssh roles"
	}
	return slices.Min(fitting)
}
