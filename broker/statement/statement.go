package statement

// Version is the only payload version this code understands.
const Version = 1

// MaxPayload is the largest payload in bytes that Open reads.
const MaxPayload = 64 << 10

// Kind names a statement's shape; its SSHSIG namespace is Kind + "@pim-ssh".
type Kind string

// The closed set of kinds.
const (
	KindPolicy      Kind = "policy"
	KindRequest     Kind = "request"
	KindDecision    Kind = "decision"
	KindCertificate Kind = "certificate"
	KindEnd         Kind = "end"
	KindSession     Kind = "session"
	KindRead        Kind = "read"
	KindHostToken   Kind = "host-token"
	KindEnrolment   Kind = "enrolment"
	KindReport      Kind = "report"
	KindCluster     Kind = "cluster"
	KindRestore     Kind = "restore"
	KindFactor      Kind = "factor"
	KindReview      Kind = "review"
	KindRenewal     Kind = "renewal"
)

// PolicyRef is the newest policy revision the signer had verified when signing.
type PolicyRef struct {
	Revision uint64 `json:"revision"` // ≥ 1
	Hash     Hash   `json:"hash"`     // of that revision's payload
}

// Head stands first in every statement but policy. Exactly one of Person and Host is set: a person's statement is
// signed by one of that person's keys, a host's by its identity key.
type Head struct {
	V          int       `json:"v"`
	Kind       Kind      `json:"kind"`
	Deployment Hash      `json:"deployment"` // hash of the first policy's payload
	Policy     PolicyRef `json:"policy"`
	Person     Person    `json:"person,omitzero"`
	Host       HostName  `json:"host,omitzero"`
	Nonce      string    `json:"nonce"` // 32 lower-case hex digits
	Created    Time      `json:"created"`
	NotAfter   Time      `json:"not_after"`
}

// Body is one statement: Request, Decision, Certificate, End, Session, Read, HostToken, Enrolment, Report, Cluster,
// Restore, Factor, Review or Renewal.
type Body interface {
	// Header returns the common head.
	Header() Head
	// check reports the first rule of shape the body breaks.
	check() error
}

// Request asks for one role on named hosts for one duration.
type Request struct {
	Head     `json:",embed"`
	Role     RoleName   `json:"role"`
	Hosts    []HostName `json:"hosts"` // 1–1000, sorted, unique; never a label or *
	Duration Seconds    `json:"duration"`
	Reason   string     `json:"reason"` // 1–1000 bytes of UTF-8
	Ticket   string     `json:"ticket,omitzero"`
	At       Time       `json:"at,omitzero"`      // scheduled start
	Expires  Time       `json:"expires"`          // unanswered by then: expired
	Keys     []Key      `json:"keys"`             // certificates may be issued for these; sorted, unique, may be empty, at most 8
	Extends  string     `json:"extends,omitzero"` // g-<stem>: a grant of the same role, whose sessions go on under this one
	Code     string     `json:"code,omitzero"`    // a second factor that brokers check: six digits, or a recovery code
}

// Verdict is an approver's answer.
type Verdict string

// The closed set of verdicts.
const (
	Approve Verdict = "approve"
	Deny    Verdict = "deny"
)

// Decision is one approver's answer to exactly the bytes whose hash it names. Hosts and Duration only narrow.
type Decision struct {
	Head     `json:",embed"`
	Request  Hash       `json:"request"`
	Verdict  Verdict    `json:"verdict"`
	Reason   string     `json:"reason,omitzero"`
	Hosts    []HostName `json:"hosts,omitzero"`
	Duration Seconds    `json:"duration,omitzero"`
	Code     string     `json:"code,omitzero"` // as in Request
}

// Certificate asks that one more key of the holder may be certified for a grant.
type Certificate struct {
	Head  `json:",embed"`
	Grant string `json:"grant"` // g-<stem>
	Key   Key    `json:"key"`
}

// How tells in which way access was taken away.
type How string

// The closed set of ways to end.
const (
	Withdraw How = "withdraw" // the asker takes back a pending request
	Return   How = "return"   // the holder gives back a grant
	Revoke   How = "revoke"   // somebody else ends a grant
)

// End takes access away: exactly one of Request and Grant is named.
type End struct {
	Head    `json:",embed"`
	Request string `json:"request,omitzero"` // r-<stem>, with Withdraw
	Grant   string `json:"grant,omitzero"`   // g-<stem>, with Return and Revoke
	How     How    `json:"how"`
	Reason  string `json:"reason,omitzero"`
}

// Session lets Key sign reads (and nothing else) for the person until Until, at most 12 h after Created.
type Session struct {
	Head  `json:",embed"`
	Key   Key  `json:"key"`
	Until Time `json:"until"`
}

// Read authenticates one GET: it lives at most 60 s and covers method, path with query, and body.
type Read struct {
	Head         `json:",embed"`
	Method       string `json:"method"`
	PathAndQuery string `json:"path_and_query"`
	BodySHA256   Hash   `json:"body_sha256"`
}

// HostToken lets one machine enrol under Name. It carries the public half of a one-time key; whoever holds the
// secret half (handed to the machine, never to a broker) signs the enrolment with it.
type HostToken struct {
	Head      `json:",embed"`
	Name      HostName          `json:"name"`
	Labels    map[string]string `json:"labels"`
	Addresses []string          `json:"addresses"` // what ssh clients dial, sorted, unique
	Key       Key               `json:"key"`       // ssh-ed25519, one-time
	Expires   Time              `json:"expires"`
}

// Enrolment binds a host's identity and ssh host keys to an operator's token. Two signatures: the token's key, then
// the identity key.
type Enrolment struct {
	Head      `json:",embed"`
	Token     Proof `json:"token"`
	MachineID Hash  `json:"machine_id"` // sha256 of /etc/machine-id's content without newline
	Identity  Key   `json:"identity"`   // ssh-ed25519
	HostKeys  []Key `json:"host_keys"`  // sorted, unique, 1–8
}

// ReportWhat says what happened on a host.
type ReportWhat string

// The closed set of reports.
const (
	SessionOpened  ReportWhat = "opened"
	SessionClosed  ReportWhat = "closed"
	SessionRefused ReportWhat = "refused"
	LogRefused     ReportWhat = "log-refused" // a broker showed a record that contradicts what this host has seen
)

// LogHead is the Merkle tree over the first Size entries of the audit log.
type LogHead struct {
	Size uint64 `json:"size"`
	Root Hash   `json:"root"`
}

// Report tells what a host saw, signed by the host's identity key; Sequence counts 1, 2, 3 … per host.
type Report struct {
	Head     `json:",embed"`
	Sequence uint64     `json:"sequence"`
	What     ReportWhat `json:"what"`
	Grant    string     `json:"grant,omitzero"` // g-<stem>
	Session  string     `json:"session,omitzero"`
	Service  string     `json:"service"`
	Account  Account    `json:"account,omitzero"`
	At       Time       `json:"at"`
	Why      string     `json:"why,omitzero"`
	Log      LogHead    `json:"log,omitzero"`   // the newest head of the audit log that the host has verified
	Epoch    uint64     `json:"epoch,omitzero"` // of that log: the newest restore that the host knows of; 0: none
}
