package main

import (
	"cmp"
	"fmt"
	"strings"

	"pim-ssh/broker"
	"pim-ssh/broker/audit/refold"
	"pim-ssh/broker/statement"
)

// line is one event in words: who did it, and what.
type line struct {
	who  string
	stem broker.Stem // of the request or grant it is about; "" for none
	what string
}

// lineOf reads an event. Text that people wrote is left out: it stands in the statement.
func lineOf(event broker.Event) line {
	switch e := event.(type) {
	case *broker.RequestFiled:
		return line{string(e.Person), e.Request.Stem(), "asks for " + string(e.Role)}
	case *broker.DecisionFiled:
		return line{string(e.Person), e.Request.Stem(), string(e.Verdict)}
	case *broker.RequestApproved:
		return line{"", e.Request.Stem(), "approved"}
	case *broker.RequestDenied:
		return line{string(e.Person), e.Request.Stem(), "denied"}
	case *broker.RequestWithdrawn:
		return line{string(e.Person), e.Request.Stem(), "withdraws it"}
	case *broker.RequestExpired:
		return line{"", e.Request.Stem(), "expired"}
	case *broker.PolicyAdopted:
		return line{"", "", fmt.Sprintf("policy revision %d", e.Revision)}
	case *broker.PolicyForked:
		return line{"", "", fmt.Sprintf("a second policy revision %d", e.Revision)}
	case *broker.HostEnrolled:
		return line{string(e.Host), "", "joins"}
	case *broker.HostReported:
		return reportLine(e)
	case *broker.BrokerAdded, *broker.BrokerRemoved, *broker.RulesRaised, *broker.EpochBegun:
		return clusterLine(event)
	case *broker.StatementRefused:
		return line{string(e.Person) + string(e.Host), "", "refused: " + string(e.Statement) + ": " + e.Why}
	default:
		return grantLine(event)
	}
}

func clusterLine(event broker.Event) line {
	switch e := event.(type) {
	case *broker.BrokerAdded:
		as := "as a voter"
		if e.Watching {
			as = "without a vote"
		}
		return line{string(e.Person), "", fmt.Sprintf("adds broker %s, disk %s, %s", e.Broker, e.Disk, as)}
	case *broker.BrokerRemoved:
		return line{string(e.Person), "", fmt.Sprintf("removes broker %s, disk %s", e.Broker, cmp.Or(string(e.Disk), "it was founded with"))}
	case *broker.RulesRaised:
		return line{string(e.Person), "", fmt.Sprintf("raises the rules to %d", e.Rules)}
	case *broker.EpochBegun:
		return line{string(e.Person), "", fmt.Sprintf("restores the brokers, epoch %d begins: %s", e.Epoch, restoreOf(e).Why)}
	}
	return line{}
}

// restoreOf is the operator's statement in it.
func restoreOf(e *broker.EpochBegun) statement.Restore {
	var said statement.Restore
	if err := statement.DecodeStrict(e.Proof.Payload, &said); err != nil {
		return statement.Restore{Why: "something unreadable"}
	}
	return said
}

func grantLine(event broker.Event) line {
	switch e := event.(type) {
	case *broker.GrantOpened:
		return line{string(e.Grant.Person), e.Grant.Stem, fmt.Sprintf("may use %s on %s until %s", e.Grant.Role, joined(e.Grant.Hosts), e.Grant.Until)}
	case *broker.GrantReturned:
		return line{string(e.Person), e.Grant.Stem(), "gives it back"}
	case *broker.GrantRevoked:
		return line{string(e.Person), e.Grant.Stem(), "revoked"}
	case *broker.GrantLapsed:
		return line{"", e.Grant.Stem(), "lapsed"}
	case *broker.CertificateIssued:
		return line{"", e.Grant.Stem(), "certificate for " + fingerprint(e.Key)}
	}
	return line{what: string(event.Head().Kind)}
}

func reportLine(e *broker.HostReported) line {
	var report statement.Report
	if err := statement.DecodeStrict(e.Proof.Payload, &report); err != nil {
		return line{who: string(e.Host), what: "reports something unreadable"}
	}
	l := line{who: string(e.Host), what: "session " + string(report.What)}
	if report.What == statement.LogRefused {
		l.what = "refused a broker's record: " + report.Why
	}
	if report.Account != "" {
		l.what += " for " + string(report.Account)
	}
	if grant, is := strings.CutPrefix(report.Grant, "g-"); is {
		l.stem = broker.Stem(grant)
	}
	if e.Missed > 0 {
		l.what += fmt.Sprintf("; %d reports before it never came", e.Missed)
	}
	return l
}

// signers says by whose keys an event's statement is signed, and whether the signatures hold. failed is the first event
// of the record that is not sound.
func signers(e refold.Event, failed uint64) (said string, holds bool) {
	proof, carries := broker.Carried(e.Event)
	switch {
	case e.Index == failed:
		return "NOT SOUND", false
	case !carries && e.Index > failed:
		return "follows an event that is not sound", false
	case !carries:
		return "follows from the statements", true
	}
	var keys []string
	shown, err := opened(proof, e.Event)
	if err != nil {
		return "DOES NOT HOLD: " + err.Error(), false
	}
	for _, signer := range shown {
		name := signer.Key.Fingerprint()
		if person, held := e.Chain.Current().KeyOwner(signer.Key); held {
			name = string(person) + " " + name
		}
		keys = append(keys, name)
	}
	said = "holds: " + strings.Join(keys, "; ")
	if e.Index > failed {
		return said + "; but what came before it is not sound", false
	}
	return said, true
}

func opened(proof statement.Proof, event broker.Event) ([]statement.Signer, error) {
	switch event.(type) {
	case *broker.PolicyAdopted, *broker.PolicyForked:
		return statement.OpenPayload(statement.KindPolicy, proof)
	}
	o, err := statement.Open(proof)
	return o.Signers, err
}
