package statement

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Limits of shape.
const (
	MaxHosts    = 1000
	MaxKeys     = 8
	MaxReason   = 1000 // bytes
	MaxTicket   = 200  // bytes
	MaxLabels   = 64
	MaxLifetime = 366 * Day // of a statement, and of what it asks for
	MaxSession  = 12 * 60 * 60
	MaxRead     = 60 // seconds
	maxPath     = 4096
)

// by tells who may stand in a statement's head.
type by int

const (
	byPerson by = iota
	byHost
	byEither
)

// Namespace returns the SSHSIG namespace that keeps this kind apart from all others.
func (k Kind) Namespace() string { return string(k) + "@pim-ssh" }

// signatures is how many signatures a statement of this kind carries.
func (k Kind) signatures() int {
	if k == KindEnrolment {
		return 2
	}
	return 1
}

// Header returns the head itself.
func (h Head) Header() Head { return h }

func (h Head) check(kind Kind, author by) error {
	lifetime := Seconds(MaxLifetime)
	if kind == KindRead {
		lifetime = MaxRead
	}
	switch {
	case h.V != Version:
		return fmt.Errorf("version %d: this program reads %d", h.V, Version)
	case h.Kind != kind:
		return fmt.Errorf("kind is %.20q", h.Kind)
	case h.Deployment.IsZero():
		return errors.New("no deployment")
	case h.Policy.Revision == 0 || h.Policy.Hash.IsZero():
		return errors.New("no policy revision")
	case len(h.Nonce) != 32 || !only(h.Nonce, hexDigits):
		return errors.New("nonce: want 32 lower-case hex digits")
	}
	return first(
		h.checkAuthor(author),
		within("created", h.Created, 1, maxTime),
		within("not_after", h.NotAfter, h.Created, h.Created.Add(lifetime)),
	)
}

func (h Head) checkAuthor(author by) error {
	switch {
	case (h.Person == "") == (h.Host == ""):
		return errors.New("want exactly one of person and host")
	case h.Person != "" && author == byHost:
		return errors.New("want a host, not a person")
	case h.Host != "" && author == byPerson:
		return errors.New("want a person, not a host")
	case h.Person != "":
		return parses("person", h.Person, ParsePerson)
	default:
		return parses("host", h.Host, ParseHostName)
	}
}

func (r Request) check() error {
	return first(
		r.Head.check(KindRequest, byPerson),
		parses("role", r.Role, ParseRoleName),
		sorted("hosts", r.Hosts, 1, MaxHosts, ParseHostName),
		checkDuration(r.Duration),
		checkReason(r.Reason, true),
		named("ticket", CheckText(r.Ticket, MaxTicket)),
		optional("at", r.At, r.Created, r.Created.Add(MaxLifetime)),
		within("expires", r.Expires, r.Created+1, r.Created.Add(MaxLifetime)),
		sorted("keys", r.Keys, 0, MaxKeys, ParseKey),
		r.checkExtends(),
		checkCode("code", r.Code),
	)
}

func (r Request) checkExtends() error {
	if r.Extends == "" {
		return nil
	}
	return checkID("extends", r.Extends, "g-")
}

func (d Decision) check() error {
	if err := first(d.Head.check(KindDecision, byPerson), checkCode("code", d.Code)); err != nil {
		return err
	}
	if d.Request.IsZero() {
		return errors.New("request: no hash")
	}
	if err := checkReason(d.Reason, false); err != nil {
		return err
	}
	switch d.Verdict {
	case Approve:
		if d.Hosts != nil {
			return first(sorted("hosts", d.Hosts, 1, MaxHosts, ParseHostName), optionalDuration(d.Duration))
		}
		return optionalDuration(d.Duration)
	case Deny:
		if d.Hosts != nil || d.Duration != 0 {
			return errors.New("a denial narrows nothing")
		}
		return nil
	default:
		return fmt.Errorf("verdict %.20q: want approve or deny", d.Verdict)
	}
}

func (c Certificate) check() error {
	return first(
		c.Head.check(KindCertificate, byPerson),
		checkID("grant", c.Grant, "g-"),
		parses("key", c.Key, ParseKey),
	)
}

func (e End) check() error {
	if err := first(e.Head.check(KindEnd, byPerson), checkReason(e.Reason, false)); err != nil {
		return err
	}
	switch e.How {
	case Withdraw:
		if e.Grant != "" {
			return errors.New("withdraw names a request, not a grant")
		}
		return checkID("request", e.Request, "r-")
	case Return, Revoke:
		if e.Request != "" {
			return fmt.Errorf("%s names a grant, not a request", e.How)
		}
		return checkID("grant", e.Grant, "g-")
	default:
		return fmt.Errorf("how %.20q: want withdraw, return or revoke", e.How)
	}
}

func (s Session) check() error {
	return first(
		s.Head.check(KindSession, byPerson),
		parses("key", s.Key, ParseKey),
		within("until", s.Until, s.Created+1, s.Created.Add(MaxSession)),
	)
}

func (r Read) check() error {
	if err := r.Head.check(KindRead, byEither); err != nil {
		return err
	}
	if r.Method != "GET" {
		return fmt.Errorf("method %.20q: want GET", r.Method)
	}
	if !strings.HasPrefix(r.PathAndQuery, "/") || len(r.PathAndQuery) > maxPath || !only(r.PathAndQuery, printable) {
		return fmt.Errorf("path_and_query %.40q: want / and printable ASCII", r.PathAndQuery)
	}
	return nil
}

func (r Report) check() error {
	if err := first(
		r.Head.check(KindReport, byHost),
		within("at", r.At, 1, maxTime),
		named("why", CheckText(r.Why, MaxReason)),
	); err != nil {
		return err
	}
	switch {
	case r.Sequence == 0:
		return errors.New("sequence: counts from 1")
	case !slices.Contains([]ReportWhat{SessionOpened, SessionClosed, SessionRefused, LogRefused}, r.What):
		return fmt.Errorf("what %.20q: want opened, closed, refused or log-refused", r.What)
	case r.Log.Size == 0 && !r.Log.Root.IsZero():
		return errors.New("log: a root without a size")
	case r.Epoch > maxEpoch:
		return errors.New("epoch: too large")
	case r.Service == "" || !matches(r.Service, lower, lower+digits+"-_", 32):
		return fmt.Errorf("service %.40q: want a PAM service such as sshd or sudo", r.Service)
	case r.Session != "" && (len(r.Session) > 64 || !only(r.Session, lower+digits+"-")):
		return fmt.Errorf("session %.80q: want at most 64 of a-z 0-9 -", r.Session)
	case r.Grant != "" && checkID("grant", r.Grant, "g-") != nil:
		return checkID("grant", r.Grant, "g-")
	case r.Account != "":
		return parses("account", r.Account, ParseAccount)
	}
	return nil
}

// first returns the first error.
func first(errs ...error) error {
	return cmp.Or(errs...)
}

func named(field string, err error) error {
	if err != nil {
		return fmt.Errorf("%s: %w", field, err)
	}
	return nil
}

// parses holds a value to its own grammar, also when it was made by hand and not by decoding.
func parses[T ~string](field string, v T, parse func(string) (T, error)) error {
	_, err := parse(string(v))
	return named(field, err)
}

// sorted holds a list to its size, its order and each member's grammar.
func sorted[T ~string](field string, list []T, least, most int, parse func(string) (T, error)) error {
	if len(list) < least || len(list) > most {
		return fmt.Errorf("%s: %d given: want %d to %d", field, len(list), least, most)
	}
	for i, v := range list {
		if err := parses(field, v, parse); err != nil {
			return err
		}
		if i > 0 && list[i-1] >= v {
			return fmt.Errorf("%s: %.80q is out of order or given twice: sort them", field, v)
		}
	}
	return nil
}

func within(field string, t, least, most Time) error {
	if t < least || t > most {
		return fmt.Errorf("%s: %s is not within %s and %s", field, t, least, most)
	}
	return nil
}

func optional(field string, t, least, most Time) error {
	if t == 0 {
		return nil
	}
	return within(field, t, least, most)
}

func checkDuration(d Seconds) error {
	if d < 1 || d > MaxLifetime {
		return fmt.Errorf("duration: %d s: want 1 to %d", d, MaxLifetime)
	}
	return nil
}

func optionalDuration(d Seconds) error {
	if d == 0 {
		return nil
	}
	return checkDuration(d)
}

func checkReason(reason string, required bool) error {
	if required && strings.Trim(reason, " ") == "" {
		return errors.New("reason: none given: say why with --why")
	}
	return named("reason", CheckText(reason, MaxReason))
}

// checkID holds an id to its shape: the prefix and 26 characters of lower base32.
func checkID(field, id, prefix string) error {
	stem, ok := strings.CutPrefix(id, prefix)
	if !ok || len(stem) != 26 || !only(stem, lower+"234567") {
		return fmt.Errorf("%s %.40q: want %s and 26 of a-z 2-7", field, id, prefix)
	}
	return nil
}
