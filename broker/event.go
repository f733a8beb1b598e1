package broker

import (
	"bytes"
	"fmt"

	"github.com/go-json-experiment/json"

	"pim-ssh/broker/statement"
)

// EventVersion is the only event encoding this code understands.
const EventVersion = 1

// EventKind says what happened; it is the event type's own name.
type EventKind string

// EventHead stands first in every event.
type EventHead struct {
	V     int            `json:"v"`
	Index uint64         `json:"index"` // 0-based leaf number in the audit log
	At    statement.Time `json:"at"`    // State.Now once the event is applied
	Kind  EventKind      `json:"kind"`
}

// Head returns the head itself.
func (h EventHead) Head() EventHead { return h }

func (h *EventHead) stamp(with EventHead) { *h = with }

// Event is one thing that happened: a pointer to one of the types below, read only once Decide has returned it. Its
// encoding is the audit leaf: the field order is frozen by golden files.
type Event interface {
	// Head returns version, index, time and kind.
	Head() EventHead
	// stamp sets the head; only Decide does.
	stamp(with EventHead)
	// kind returns the type's own name; it seals the set.
	kind() EventKind
}

// RequestFiled: somebody asked.
type RequestFiled struct {
	EventHead `json:",embed"`
	Request   RequestID          `json:"request"`
	Person    statement.Person   `json:"person"`
	Role      statement.RoleName `json:"role"`
	Judged    Judged             `json:"judged,omitzero"` // by the proposer
	Proof     statement.Proof    `json:"proof"`
}

// DecisionFiled: an approver said yes or no.
type DecisionFiled struct {
	EventHead `json:",embed"`
	Request   RequestID         `json:"request"`
	Person    statement.Person  `json:"person"` // the approver
	Verdict   statement.Verdict `json:"verdict"`
	Judged    Judged            `json:"judged,omitzero"`
	Proof     statement.Proof   `json:"proof"`
}

// RequestApproved: the quorum is full; GrantOpened follows.
type RequestApproved struct {
	EventHead `json:",embed"`
	Request   RequestID `json:"request"`
}

// RequestDenied: one denial ends a request.
type RequestDenied struct {
	EventHead `json:",embed"`
	Request   RequestID        `json:"request"`
	Person    statement.Person `json:"person"` // who denied
}

// RequestWithdrawn: the asker took it back.
type RequestWithdrawn struct {
	EventHead `json:",embed"`
	Request   RequestID        `json:"request"`
	Person    statement.Person `json:"person"`
	Proof     statement.Proof  `json:"proof"`
}

// RequestExpired: nobody answered in time.
type RequestExpired struct {
	EventHead `json:",embed"`
	Request   RequestID `json:"request"`
}

// GrantOpened: the dossier proves a grant. One CertificateIssued for each of its keys follows.
type GrantOpened struct {
	EventHead `json:",embed"`
	By        statement.Hash `json:"by"` // the statement that filled the quorum, or the request that needed none, or the policy
	Grant     Grant          `json:"grant"`
}

// GrantReturned: the holder gave it back.
type GrantReturned struct {
	EventHead `json:",embed"`
	Grant     GrantID          `json:"grant"`
	Person    statement.Person `json:"person"`
	Proof     statement.Proof  `json:"proof"`
}

// GrantRevoked: somebody else ended it, or the policy that PolicyAdopted brought no longer holds it.
type GrantRevoked struct {
	EventHead `json:",embed"`
	Grant     GrantID          `json:"grant"`
	Person    statement.Person `json:"person,omitzero"` // who revoked; none when the policy did
	Why       string           `json:"why"`
	Proof     *statement.Proof `json:"proof"` // null when the policy did
}

// GrantLapsed: its window is over. Only a record: hosts and certificates ended it untold.
type GrantLapsed struct {
	EventHead `json:",embed"`
	Grant     GrantID `json:"grant"`
}

// CertificateIssued: a certificate for this key may be signed; its serial is this event's index.
type CertificateIssued struct {
	EventHead `json:",embed"`
	Grant     GrantID          `json:"grant"`
	Key       statement.Key    `json:"key"`
	Proof     *statement.Proof `json:"proof"` // the certificate statement; null when the request named the key
}

// PolicyAdopted: a new revision is in force.
type PolicyAdopted struct {
	EventHead `json:",embed"`
	Revision  uint64          `json:"revision"`
	Rules     int             `json:"rules,omitzero"`    // with the first: the rules that the deployment begins under, unless 1
	Founding  uint64          `json:"founding,omitzero"` // with the first, from rules 2 on: the revision whose brokers found the cluster
	Proof     statement.Proof `json:"proof"`
}

// PolicyForked: the stewards signed two policies of one number. Nothing is granted until a later revision is adopted.
type PolicyForked struct {
	EventHead `json:",embed"`
	Revision  uint64          `json:"revision"`
	Proof     statement.Proof `json:"proof"` // the one that is not in force
}

// HostEnrolled: a machine joined under an operator's token.
type HostEnrolled struct {
	EventHead `json:",embed"`
	Host      statement.HostName `json:"host"`
	Proof     statement.Proof    `json:"proof"`
}

// HostReported: a host told what it saw.
type HostReported struct {
	EventHead `json:",embed"`
	Host      statement.HostName `json:"host"`
	Missed    uint64             `json:"missed,omitzero"` // sequence numbers that never arrived: withheld or lost
	Proof     statement.Proof    `json:"proof"`
}

// BrokerAdded: an operator made a broker a member, or gave a member that watched its vote.
type BrokerAdded struct {
	EventHead `json:",embed"`
	Broker    statement.BrokerName `json:"broker"`
	Disk      statement.Disk       `json:"disk"`
	Watching  bool                 `json:"watching"`
	Person    statement.Person     `json:"person"`
	Proof     statement.Proof      `json:"proof"`
}

// BrokerRemoved: an operator took a disk out of the cluster, for ever.
type BrokerRemoved struct {
	EventHead `json:",embed"`
	Broker    statement.BrokerName `json:"broker"`
	Disk      statement.Disk       `json:"disk,omitzero"` // none: the one it was founded with
	Person    statement.Person     `json:"person"`
	Proof     statement.Proof      `json:"proof"`
}

// RulesRaised: every later event is decided under these rules.
type RulesRaised struct {
	EventHead `json:",embed"`
	Rules     int              `json:"rules"`
	Person    statement.Person `json:"person"`
	Proof     statement.Proof  `json:"proof"`
}

// StatementRefused: a fresh, authentic statement of a person or host that the rules refuse.
type StatementRefused struct {
	EventHead `json:",embed"`
	Hash      statement.Hash     `json:"hash"`
	Statement statement.Kind     `json:"statement"`
	Person    statement.Person   `json:"person,omitzero"`
	Host      statement.HostName `json:"host,omitzero"`
	Error     Kind               `json:"error"`
	Why       string             `json:"why"`
	Hint      string             `json:"hint"`
	Judged    Judged             `json:"judged,omitzero"`
	Proof     statement.Proof    `json:"proof"`
}

// EpochBegun: the deployment goes on from a copy of its record. What follows in the same breath ends every grant and request
// from before. Its time is the operator's, and may be earlier than that of the events before it.
type EpochBegun struct {
	EventHead `json:",embed"`
	Epoch     uint64           `json:"epoch"`
	Rules     int              `json:"rules"` // in force from here on
	Person    statement.Person `json:"person"`
	Proof     statement.Proof  `json:"proof"`
}

// GrantStarted: a grant that was asked for a later moment was judged again, and its window has begun.
type GrantStarted struct {
	EventHead `json:",embed"`
	Grant     GrantID `json:"grant"`
}

// GrantReviewed: somebody has looked at what was done under an emergency grant.
type GrantReviewed struct {
	EventHead `json:",embed"`
	Grant     GrantID          `json:"grant"`
	Person    statement.Person `json:"person"` // the reviewer
	Proof     statement.Proof  `json:"proof"`
}

// RenewalAsked: somebody asks the stewards for a later end of an eligibility.
type RenewalAsked struct {
	EventHead `json:",embed"`
	Person    statement.Person   `json:"person"`
	Role      statement.RoleName `json:"role"`
	Until     statement.Time     `json:"until"`
	Proof     statement.Proof    `json:"proof"`
}

// FactorEnrolled: a person's codes are made from a new seed.
type FactorEnrolled struct {
	EventHead `json:",embed"`
	Person    statement.Person `json:"person"`
	Judged    Judged           `json:"judged"`
	Proof     statement.Proof  `json:"proof"`
}

// FactorReset: an operator took a person's seed away.
type FactorReset struct {
	EventHead `json:",embed"`
	Person    statement.Person `json:"person"` // the operator
	Of        statement.Person `json:"of"`
	Proof     statement.Proof  `json:"proof"`
}

func (RequestFiled) kind() EventKind      { return "RequestFiled" }
func (DecisionFiled) kind() EventKind     { return "DecisionFiled" }
func (RequestApproved) kind() EventKind   { return "RequestApproved" }
func (RequestDenied) kind() EventKind     { return "RequestDenied" }
func (RequestWithdrawn) kind() EventKind  { return "RequestWithdrawn" }
func (RequestExpired) kind() EventKind    { return "RequestExpired" }
func (GrantOpened) kind() EventKind       { return "GrantOpened" }
func (GrantReturned) kind() EventKind     { return "GrantReturned" }
func (GrantRevoked) kind() EventKind      { return "GrantRevoked" }
func (GrantLapsed) kind() EventKind       { return "GrantLapsed" }
func (CertificateIssued) kind() EventKind { return "CertificateIssued" }
func (PolicyAdopted) kind() EventKind     { return "PolicyAdopted" }
func (PolicyForked) kind() EventKind      { return "PolicyForked" }
func (HostEnrolled) kind() EventKind      { return "HostEnrolled" }
func (HostReported) kind() EventKind      { return "HostReported" }
func (BrokerAdded) kind() EventKind       { return "BrokerAdded" }
func (BrokerRemoved) kind() EventKind     { return "BrokerRemoved" }
func (RulesRaised) kind() EventKind       { return "RulesRaised" }
func (EpochBegun) kind() EventKind        { return "EpochBegun" }
func (StatementRefused) kind() EventKind  { return "StatementRefused" }
func (GrantStarted) kind() EventKind      { return "GrantStarted" }
func (GrantReviewed) kind() EventKind     { return "GrantReviewed" }
func (RenewalAsked) kind() EventKind      { return "RenewalAsked" }
func (FactorEnrolled) kind() EventKind    { return "FactorEnrolled" }
func (FactorReset) kind() EventKind       { return "FactorReset" }

// EncodeEvent returns the event's one spelling: the bytes of its audit leaf.
func EncodeEvent(e Event) ([]byte, error) {
	data, err := json.Marshal(e, json.Deterministic(true))
	if err != nil {
		return nil, fmt.Errorf("event %s: %w", e.kind(), err)
	}
	return data, nil
}

// DecodeEvent reads an audit leaf strictly: the one spelling only, and every proof in it carries the kind of statement
// that belongs there. No signature is verified. An unknown version or kind is ErrUnknownVersion: MustStop holds.
func DecodeEvent(data []byte) (Event, error) {
	var head struct {
		V    int       `json:"v"`
		Kind EventKind `json:"kind"`
	}
	if err := json.Unmarshal(data, &head); err != nil {
		return nil, fmt.Errorf("event: %w", err)
	}
	if head.V != EventVersion {
		return nil, fmt.Errorf("event version %d: %w", head.V, ErrUnknownVersion)
	}
	decode, known := eventDecoders[head.Kind]
	if !known {
		return nil, fmt.Errorf("event kind %.40q: %w", head.Kind, ErrUnknownVersion)
	}
	e, err := decode(data)
	if err != nil {
		return nil, fmt.Errorf("event %s: %w", head.Kind, err)
	}
	again, err := EncodeEvent(e)
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(again, data) {
		return nil, fmt.Errorf("event %s: not in canonical form", head.Kind)
	}
	return e, nil
}

var eventDecoders = map[EventKind]func([]byte) (Event, error){
	"RequestFiled":      decodeEvent[RequestFiled],
	"DecisionFiled":     decodeEvent[DecisionFiled],
	"RequestApproved":   decodeEvent[RequestApproved],
	"RequestDenied":     decodeEvent[RequestDenied],
	"RequestWithdrawn":  decodeEvent[RequestWithdrawn],
	"RequestExpired":    decodeEvent[RequestExpired],
	"GrantOpened":       decodeEvent[GrantOpened],
	"GrantReturned":     decodeEvent[GrantReturned],
	"GrantRevoked":      decodeEvent[GrantRevoked],
	"GrantLapsed":       decodeEvent[GrantLapsed],
	"CertificateIssued": decodeEvent[CertificateIssued],
	"PolicyAdopted":     decodeEvent[PolicyAdopted],
	"PolicyForked":      decodeEvent[PolicyForked],
	"HostEnrolled":      decodeEvent[HostEnrolled],
	"HostReported":      decodeEvent[HostReported],
	"BrokerAdded":       decodeEvent[BrokerAdded],
	"BrokerRemoved":     decodeEvent[BrokerRemoved],
	"RulesRaised":       decodeEvent[RulesRaised],
	"EpochBegun":        decodeEvent[EpochBegun],
	"StatementRefused":  decodeEvent[StatementRefused],
	"GrantStarted":      decodeEvent[GrantStarted],
	"GrantReviewed":     decodeEvent[GrantReviewed],
	"RenewalAsked":      decodeEvent[RenewalAsked],
	"FactorEnrolled":    decodeEvent[FactorEnrolled],
	"FactorReset":       decodeEvent[FactorReset],
}

func decodeEvent[T any, E interface {
	*T
	Event
}](data []byte) (Event, error) {
	e := E(new(T))
	if err := statement.DecodeStrict(data, e); err != nil {
		return nil, err
	}
	if err := checkRulesIn(e); err != nil {
		return nil, err
	}
	return e, checkCarried(e)
}

// checkRulesIn holds the rules that an event puts in force to those this code knows.
func checkRulesIn(e Event) error {
	rules, least := 0, 0
	switch e := e.(type) {
	case *PolicyAdopted:
		if rules = e.Rules; rules == 0 && e.Founding == 0 {
			return nil
		}
		least = 2
		if e.Index > 0 {
			return fmt.Errorf("begins under rules %d, and is not the first", rules)
		}
	case *RulesRaised:
		rules, least = e.Rules, 2
	case *EpochBegun:
		rules, least = e.Rules, 2
	}
	switch {
	case rules > Rules:
		return fmt.Errorf("rules %d: %w", rules, ErrUnknownVersion)
	case rules < least:
		return fmt.Errorf("puts rules %d in force", rules)
	}
	return nil
}

// checkCarried holds the proof in an event to the kinds of statement that may stand there.
func checkCarried(e Event) error {
	p, carries := Carried(e)
	if !carries {
		return nil
	}
	var head struct {
		Kind statement.Kind `json:"kind"`
	}
	if err := json.Unmarshal(p.Payload, &head); err != nil {
		return err
	}
	if want := carriedKind(e); head.Kind != want {
		return fmt.Errorf("carries a %.20q statement: want %s", head.Kind, want)
	}
	return nil
}

// Carried returns the statement an event is the record of. Events without one follow from the event before them, or from
// time alone (RequestExpired, GrantLapsed).
func Carried(e Event) (statement.Proof, bool) {
	switch e := e.(type) {
	case *RequestFiled:
		return e.Proof, true
	case *DecisionFiled:
		return e.Proof, true
	case *RequestWithdrawn:
		return e.Proof, true
	case *GrantReturned:
		return e.Proof, true
	case *GrantRevoked:
		return optional(e.Proof)
	case *CertificateIssued:
		return optional(e.Proof)
	case *PolicyAdopted:
		return e.Proof, true
	case *PolicyForked:
		return e.Proof, true
	case *HostEnrolled:
		return e.Proof, true
	case *HostReported:
		return e.Proof, true
	case *BrokerAdded:
		return e.Proof, true
	case *BrokerRemoved:
		return e.Proof, true
	case *RulesRaised:
		return e.Proof, true
	case *EpochBegun:
		return e.Proof, true
	case *StatementRefused:
		return e.Proof, true
	case *GrantReviewed:
		return e.Proof, true
	case *RenewalAsked:
		return e.Proof, true
	case *FactorEnrolled:
		return e.Proof, true
	case *FactorReset:
		return e.Proof, true
	default:
		return statement.Proof{}, false
	}
}

func optional(p *statement.Proof) (statement.Proof, bool) {
	if p == nil {
		return statement.Proof{}, false
	}
	return *p, true
}

func carriedKind(e Event) statement.Kind {
	switch e := e.(type) {
	case *RequestFiled:
		return statement.KindRequest
	case *DecisionFiled:
		return statement.KindDecision
	case *RequestWithdrawn, *GrantReturned, *GrantRevoked:
		return statement.KindEnd
	case *CertificateIssued:
		return statement.KindCertificate
	case *PolicyAdopted, *PolicyForked:
		return statement.KindPolicy
	case *HostEnrolled:
		return statement.KindEnrolment
	case *HostReported:
		return statement.KindReport
	case *BrokerAdded, *BrokerRemoved, *RulesRaised:
		return statement.KindCluster
	case *EpochBegun:
		return statement.KindRestore
	case *StatementRefused:
		return e.Statement
	case *GrantReviewed:
		return statement.KindReview
	case *RenewalAsked:
		return statement.KindRenewal
	case *FactorEnrolled, *FactorReset:
		return statement.KindFactor
	default:
		return ""
	}
}
