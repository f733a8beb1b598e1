package broker

import (
	"fmt"

	"github.com/go-json-experiment/json"

	"pim-ssh/broker/statement"
)

// Rules is the newest version of the rules in this package; it knows all from 1 on. Which one is in force is replicated
// (State.Rules), so that brokers of two builds decide alike until an operator raises it. What a version decides, and the
// words in which it refuses, are frozen: a later build must give the very same events. A command made under a version
// that this package does not know stops the broker: applying it might make this broker differ from its peers.
//
// Rules 2 bring cluster statements and what they do; a policy must list a broker that votes, and one it drops never returns.
// Rules 3 bring policies of version 2, what the proposer judged, second factors, extensions, reviews and renewals.
const Rules = 3

// CommandVersion is the only command encoding this code understands.
const CommandVersion = 1

// MaxSkew is how far, in seconds, a command's time may lie ahead of a broker's own clock before that broker raises an
// alarm and stamps nothing itself.
const MaxSkew statement.Seconds = 5

// CommandKind says what is proposed.
type CommandKind string

// The closed set of command kinds.
const (
	FileRequest      CommandKind = "FileRequest"
	FileDecision     CommandKind = "FileDecision"
	EndAccess        CommandKind = "EndAccess"
	IssueCertificate CommandKind = "IssueCertificate"
	AdoptPolicy      CommandKind = "AdoptPolicy"
	EnrolHost        CommandKind = "EnrolHost"
	ReportHost       CommandKind = "ReportHost"
	ChangeCluster    CommandKind = "ChangeCluster" // from rules 2 on
	RaiseRules       CommandKind = "RaiseRules"    // to rules 2 or later
	BeginEpoch       CommandKind = "BeginEpoch"    // the first command on restored disks
	ChangeFactor     CommandKind = "ChangeFactor"  // from rules 3 on, as what follows
	ReviewGrant      CommandKind = "ReviewGrant"
	AskRenewal       CommandKind = "AskRenewal"
	Tick             CommandKind = "Tick"
)

// Command is one proposal to the cluster. The leader stamps At, and Judged where a role asks for it: everything meant
// stands in the proof.
type Command struct {
	V        int             `json:"v"`
	At       statement.Time  `json:"at"` // the leader's clock
	Kind     CommandKind     `json:"kind"`
	Rules    int             `json:"rules"`             // see Under
	Founding uint64          `json:"founding,omitzero"` // of the first: on how many policy revisions the deployment is founded
	Proof    statement.Proof `json:"proof,omitzero"`    // of every kind but Tick
	State    *StateAt        `json:"state,omitzero"`    // of Tick only, and optional there
	Judged   Judged          `json:"judged,omitzero"`   // by the leader, from rules 3 on
}

// StateAt is the leader's state digest once it had applied every event below Index. A broker at the same index with
// another digest has diverged and stops.
type StateAt struct {
	Index  uint64         `json:"index"`
	Digest statement.Hash `json:"digest"`
}

// CommandFor opens a proof and returns the command it asks for, under no rules yet: see Under. Bytes that are no well-formed, well-signed statement,
// and kinds that nobody files (session, read, host-token), are Invalid. A policy is only decided by Decide.
func CommandFor(p statement.Proof, at statement.Time) (Command, error) {
	var head struct {
		Kind statement.Kind `json:"kind"`
	}
	if err := json.Unmarshal(p.Payload, &head); err != nil {
		return Command{}, Refuse(Invalid, "", "statement: %w", err)
	}
	c := Command{V: CommandVersion, At: at, Proof: p}
	if head.Kind == statement.KindPolicy {
		c.Kind = AdoptPolicy
		return c, nil
	}
	o, err := statement.Open(p)
	if err != nil {
		return Command{}, Refuse(Invalid, "", "%w", err)
	}
	c.Kind, err = commandKind(o.Body)
	return c, err
}

// TickAt returns the command that records what time alone has ended, under no rules yet: see Under. state may be nil.
func TickAt(at statement.Time, state *StateAt) Command {
	return Command{V: CommandVersion, At: at, Kind: Tick, State: state}
}

func commandKind(b statement.Body) (CommandKind, error) {
	switch b := b.(type) {
	case statement.Request:
		return FileRequest, nil
	case statement.Decision:
		return FileDecision, nil
	case statement.End:
		return EndAccess, nil
	case statement.Certificate:
		return IssueCertificate, nil
	case statement.Enrolment:
		return EnrolHost, nil
	case statement.Report:
		return ReportHost, nil
	case statement.Cluster:
		if b.Action == statement.Raise {
			return RaiseRules, nil
		}
		return ChangeCluster, nil
	case statement.Restore:
		return BeginEpoch, nil
	case statement.Factor:
		return ChangeFactor, nil
	case statement.Review:
		return ReviewGrant, nil
	case statement.Renewal:
		return AskRenewal, nil
	default:
		return "", Refuse(Invalid, "", "a %s statement is nothing to file", b.Header().Kind)
	}
}

// EncodeCommand returns the command's one spelling.
func EncodeCommand(c Command) ([]byte, error) {
	data, err := json.Marshal(c, json.Deterministic(true))
	if err != nil {
		return nil, fmt.Errorf("command %s: %w", c.Kind, err)
	}
	return data, nil
}

// DecodeCommand reads a command strictly. An encoding of another version is ErrUnknownVersion, for which MustStop holds.
func DecodeCommand(data []byte) (Command, error) {
	var head struct {
		V int `json:"v"`
	}
	if err := json.Unmarshal(data, &head); err != nil {
		return Command{}, fmt.Errorf("command: %w", err)
	}
	if head.V != CommandVersion {
		return Command{}, fmt.Errorf("command version %d: %w", head.V, ErrUnknownVersion)
	}
	var c Command
	if err := statement.DecodeStrict(data, &c); err != nil {
		return Command{}, fmt.Errorf("command: %w", err)
	}
	return c, nil
}
