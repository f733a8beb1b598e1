package agent

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"pim-ssh/broker/statement"
	"pim-ssh/pam/wire"
)

// accountSudo allows a sudo run when its real caller holds a live grant with a sudo rule here, and puts it into its session
// at once: then open_session need not be asked. Which rule matched, PAM cannot see (F14): sudoers decides that, and may
// still let nothing begin.
func (a *Agent) accountSudo(q *wire.Account, p *peer) ruling {
	caller, err := a.caller(q.User, p)
	if err != nil {
		return deny(err, "")
	}
	if caller.exempt {
		return ruling{allow: true}
	}
	live, r := a.sudoGrants(caller.uid, statement.Account(q.User))
	if !r.allow {
		return r
	}
	as := runAs(live)
	if len(as) > maxRunAs || a.sessions.listening() >= a.most.lines {
		return ruling{allow: true} // no room for it: open_session is asked
	}
	r = a.place(live, session{Process: process{PID: p.PID}, Service: q.Service, line: true}, p)
	r.runAs = as
	return r
}

// maxRunAs keeps an answer below wire.MaxAnswer.
const maxRunAs = 600

// runAs names the accounts that sudo rules of the grants run commands as.
func runAs(grants []view) string {
	var accounts []string
	for _, v := range grants {
		for _, rule := range v.Sudo {
			accounts = append(accounts, string(rule.As))
		}
	}
	slices.Sort(accounts)
	return strings.Join(slices.Compact(accounts), " ")
}

// openSession rules on open_session, and on an allowance has put the asking process into its grant's unit.
func (a *Agent) openSession(ctx context.Context, q *wire.Open, p *peer) ruling {
	switch q.Service {
	case "sudo", "sudo-i":
		return a.openSudo(q, p)
	case "sshd":
		return a.openLogin(ctx, q, p)
	default:
		return deny(fmt.Errorf("%s opens no sessions under a grant", q.Service), "")
	}
}

// openSudo asks the kernel again who runs this sudo: its real uid is the caller's here too, and `sudo -b` opens the
// session in a child of the process that account was asked by.
func (a *Agent) openSudo(q *wire.Open, p *peer) ruling {
	caller, err := a.caller(q.RUser, p)
	if err != nil {
		return deny(err, "")
	}
	if caller.exempt {
		return ruling{allow: true}
	}
	live, r := a.sudoGrants(caller.uid, statement.Account(q.RUser))
	if !r.allow {
		return r
	}
	as := statement.Account(q.User)
	if !slices.Contains(strings.Fields(runAs(live)), string(as)) {
		return deny(fmt.Errorf("no live grant runs commands as %q", as), a.suggest(statement.Account(q.RUser), ""))
	}
	return a.place(live, session{Process: process{PID: p.PID}, Service: q.Service, Account: as}, p)
}

func (a *Agent) openLogin(ctx context.Context, q *wire.Open, p *peer) ruling {
	cert, err := authCertificate(q.AuthInfo)
	if err != nil {
		return deny(err, a.suggest("", statement.Account(q.User)))
	}
	account := statement.Account(q.User)
	v, err := a.judgeCertificate(ctx, account, cert)
	if err != nil {
		return deny(err, a.suggest("", account))
	}
	return a.place([]view{v}, session{Process: process{PID: p.PID}, Service: q.Service, Account: account}, p)
}

// place puts the asking process into the unit of the first of its grants. The gates of all are held over the move, so that
// none can end between the last look and the session's being known, and the caller is looked at once more after it.
func (a *Agent) place(grants []view, s session, p *peer) ruling {
	if !a.enforcing() {
		return ruling{allow: true} // an observing host moves nobody
	}
	for _, v := range grants { // the keeper alone locks them for writing, one at a time: no two of us wait for each other
		v.gate.RLock()
		defer v.gate.RUnlock()
		if v.opened == nil || a.Clock.remaining(v.opened.end) <= 0 {
			return deny(fmt.Errorf("grant %s ended at this moment: try again", v.ID), "")
		}
	}
	v := slices.MinFunc(grants, func(x, y view) int {
		return cmp.Compare(a.Clock.remaining(x.opened.last), a.Clock.remaining(y.opened.last))
	})
	s.Stem, s.Opened = v.Stem, a.Clock.now()
	for _, v := range grants {
		s.Grants = append(s.Grants, v.Stem)
	}
	s, err := a.sessions.open(s, v.opened.place)
	if err == nil {
		err = p.alive()
	}
	if err != nil {
		a.sessions.hungUp(s.N)
		return deny(fmt.Errorf("grant %s: session not placed: %w", v.ID, err), "")
	}
	return ruling{allow: true, left: a.Clock.remaining(v.opened.last), grant: v.Stem, placed: s, then: func() { a.placed(v, s, p) }}
}

// placed is what a start still owes when its answer is given: it must not wait for it, and needs it only should the
// agent die.
func (a *Agent) placed(v view, s session, p *peer) {
	start := uint64(0)
	if !s.waits() {
		a.reports.opened(s)
		if process, err := p.process(); err == nil {
			start = process.Start
		}
	}
	if err := a.sessions.keep(s, start); err != nil {
		a.Log.Error("session not recorded", "session", s.name(), "error", err)
	}
	v.gate.RLock()
	defer v.gate.RUnlock()
	if v.opened == nil {
		return
	}
	if err := a.sessions.prepare(v.Stem, v.opened.place); err != nil {
		a.Log.Warn("next session not prepared", "grant", v.ID, "error", err)
	}
}

// begun notes that what account placed has begun: sudo's open_session needed no question.
func (a *Agent) begun(s session, q *wire.Begun) {
	account, err := statement.ParseAccount(q.User)
	if err == nil {
		s, err = a.sessions.begin(s.N, account, a.Clock.now())
	}
	if err != nil {
		a.Log.Warn("a session that cannot begin", "session", s.name(), "grant", s.Stem.Grant(), "account", q.User, "why", err)
		return
	}
	a.reports.opened(s)
	if err := a.sessions.record(s.N); err != nil {
		a.Log.Error("session not recorded", "session", s.name(), "error", err)
	}
}

// closedBy notes that PAM closed the session which this process opened.
func (a *Agent) closedBy(p *peer) {
	process, err := p.process()
	if err != nil {
		return // it is gone; the sweep finds out
	}
	if s, found := a.sessions.by(process); found {
		a.closeSession(s.N)
	}
}
