package wire

import (
	"fmt"
	"io"
)

// MaxQuestion is the most a question's length prefix may say, in bytes.
const MaxQuestion = 16384

// Question is one of Account, Open, Begun, Close or Principals; nothing else.
type Question interface {
	kind() byte
	fields() []*string
}

// Account asks, in PAM's account phase, whether a login or a sudo run may go on.
// Under sudo User and RUser are both the caller; under sshd User is the account
// somebody logs in to and RUser is empty.
type Account struct {
	Service string // PAM service: "sshd", "sudo", "sudo-i", "su" …
	User    string // PAM_USER
	RUser   string // PAM_RUSER, "" when unset
	RHost   string // PAM_RHOST, "" when unset
}

// Open asks, in open_session, to start a session and to put the asking process
// into its grant's unit. Under sudo User is the target account, RUser the caller.
type Open struct {
	Service  string
	User     string
	RUser    string
	RHost    string
	TTY      string // PAM_TTY, "" when unset
	AuthInfo string // sshd's SSH_AUTH_INFO_0: "publickey TYPE BASE64", one line per method
}

// Begun tells that the session which Account's answer named has begun: open_session
// needed no question. It is said on the connection that the answer came by and on no
// other, it asks for nothing and nothing answers it. That connection's end is the
// session's.
type Begun struct {
	User string // PAM_USER: the account that commands run as
}

// Close tells that the session Open began is over. Its answer is not read by anyone.
type Close struct {
	Service  string
	User     string
	RUser    string
	RHost    string
	TTY      string
	AuthInfo string
}

// Principals is sshd's AuthorizedPrincipalsCommand: which principal, if any, may
// the certificate carry to log in to the account (%u %t %k %K, unchanged).
type Principals struct {
	Account     string // login name
	KeyType     string // "ssh-ed25519-cert-v01@openssh.com"
	Certificate string // base64 of the whole certificate
	CA          string // base64 of the key that signed it
}

func (*Account) kind() byte    { return 'A' }
func (*Open) kind() byte       { return 'O' }
func (*Begun) kind() byte      { return 'B' }
func (*Close) kind() byte      { return 'C' }
func (*Principals) kind() byte { return 'P' }

func (q *Account) fields() []*string {
	return []*string{&q.Service, &q.User, &q.RUser, &q.RHost}
}

func (q *Open) fields() []*string {
	return []*string{&q.Service, &q.User, &q.RUser, &q.RHost, &q.TTY, &q.AuthInfo}
}

func (q *Begun) fields() []*string { return []*string{&q.User} }

func (q *Close) fields() []*string {
	return []*string{&q.Service, &q.User, &q.RUser, &q.RHost, &q.TTY, &q.AuthInfo}
}

func (q *Principals) fields() []*string {
	return []*string{&q.Account, &q.KeyType, &q.Certificate, &q.CA}
}

// blank returns the empty question of a kind, nil for a kind nobody defined.
func blank(kind byte) Question {
	switch kind {
	case 'A':
		return &Account{}
	case 'O':
		return &Open{}
	case 'B':
		return &Begun{}
	case 'C':
		return &Close{}
	case 'P':
		return &Principals{}
	}
	return nil
}

// EncodeQuestion returns q as it stands on the wire, length prefix included. It
// refuses a field with a NUL in it and a question over MaxQuestion.
func EncodeQuestion(q Question) ([]byte, error) {
	b := append([]byte(magic), q.kind())
	for _, f := range q.fields() {
		var err error
		if b, err = appendField(b, *f); err != nil {
			return nil, fmt.Errorf("question %c: %w", q.kind(), err)
		}
	}
	return seal(b, MaxQuestion)
}

// DecodeQuestion reads one whole question, length prefix included; any byte
// missing or left over is an error.
func DecodeQuestion(b []byte) (Question, error) {
	r, err := unseal(b, MaxQuestion)
	if err != nil {
		return nil, fmt.Errorf("question: %w", err)
	}
	kind := r.byte()
	q := blank(kind)
	if q == nil {
		return nil, fmt.Errorf("question: unknown kind %q", kind)
	}
	for _, f := range q.fields() {
		*f = r.field()
	}
	if err := r.done(); err != nil {
		return nil, fmt.Errorf("question %c: %w", kind, err)
	}
	return q, nil
}

// ReadQuestion reads exactly one question from a connection and not a byte
// more. The deadline is the caller's to set on the connection.
func ReadQuestion(r io.Reader) (Question, error) {
	b, err := readFrame(r, MaxQuestion)
	if err != nil {
		return nil, fmt.Errorf("question: %w", err)
	}
	return DecodeQuestion(b)
}

// WriteQuestion writes q in one Write, as the C side does.
func WriteQuestion(w io.Writer, q Question) error {
	b, err := EncodeQuestion(q)
	if err != nil {
		return err
	}
	_, err = w.Write(b)
	return err
}
