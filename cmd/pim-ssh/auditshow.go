package main

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/spf13/cobra"

	"pim-ssh/broker"
	"pim-ssh/broker/audit"
	"pim-ssh/broker/audit/refold"
	"pim-ssh/broker/statement"
	"pim-ssh/cmd/pim-ssh/term"
)

func auditListCommand(d *desk, dir *string) *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "list every event, one a line",
		Args:  none("pim-ssh audit list"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			events, found, err := d.events(cmd.Context(), *dir)
			if len(events) == 0 {
				return err
			}
			return d.auditList(events, found, err)
		},
	}
}

func auditShowCommand(d *desk, dir *string) *cobra.Command {
	return &cobra.Command{
		Use:   "show ID",
		Short: "tell one request's whole story, with each signature's verdict",
		Args:  one("ID", "pim-ssh audit list"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkID(args[0]); err != nil {
				return err
			}
			events, found, err := d.events(cmd.Context(), *dir)
			if len(events) == 0 {
				return err
			}
			return d.auditShow(events, found, args[0], err)
		},
	}
}

// events reads the longest record whole. When it is not sound, what could be read comes with the error.
func (d *desk) events(ctx context.Context, dir string) ([]refold.Event, refold.Verified, error) {
	p, all, err := d.records(ctx, dir)
	if err != nil {
		return nil, refold.Verified{}, err
	}
	one := longest(all)
	if one.wrong != nil {
		return nil, refold.Verified{}, invalid("pim-ssh audit verify", "the record of %s: %v", one.name, one.wrong)
	}
	var events []refold.Event
	found, err := refold.Verify(refold.Record{Source: one.source, Signed: one.signed, Pinned: p.chain, Now: d.clock()}, func(e refold.Event) {
		events = append(events, e)
	})
	if err != nil {
		err = invalid("pim-ssh audit verify", "the record of %s is not sound: %v", one.name, err)
	}
	return events, found, err
}

func (d *desk) auditList(events []refold.Event, found refold.Verified, unsound error) error {
	var rows [][]string
	for _, e := range events {
		if d.json() {
			leaf, err := broker.EncodeEvent(e.Event)
			if err != nil {
				return err
			}
			if err := d.term.JSON(jsontext.Value(leaf)); err != nil {
				return err
			}
			continue
		}
		head, said := e.Head(), lineOf(e.Event)
		about := ""
		if said.stem != "" {
			about = short(said.stem.Request())
		}
		mark := ""
		if e.Index >= found.Failed {
			mark = "!"
		}
		rows = append(rows, []string{strconv.FormatUint(e.Index, 10) + mark, head.At.String(), string(head.Kind), said.who, about, said.what})
	}
	if len(rows) > 0 {
		d.term.Table([]string{"EVENT", "AT", "KIND", "WHO", "ABOUT", "WHAT"}, rows)
	}
	return unsound
}

// storyJSON is one request's story.
type storyJSON struct {
	ID     broker.RequestID `json:"id"`
	Sound  bool             `json:"sound"` // the whole record is
	Events []chapterJSON    `json:"events"`
}

type chapterJSON struct {
	Index   uint64           `json:"index"`
	At      statement.Time   `json:"at"`
	Kind    broker.EventKind `json:"kind"`
	Who     string           `json:"who"`
	What    string           `json:"what"`
	Why     string           `json:"why"` // as a person wrote it
	Holds   bool             `json:"holds"`
	Verdict string           `json:"verdict"` // on its signatures, in words
}

func (d *desk) auditShow(events []refold.Event, found refold.Verified, id string, unsound error) error {
	stem, err := stemOf(events, id)
	if err != nil {
		return err
	}
	story := storyJSON{ID: stem.Request(), Sound: unsound == nil}
	for _, e := range events {
		said := lineOf(e.Event)
		if said.stem != stem && !decidesOn(e.Event, stem) {
			continue
		}
		verdict, holds := signers(e, found.Failed)
		head := e.Head()
		story.Events = append(story.Events, chapterJSON{e.Index, head.At, head.Kind, said.who, said.what, written(e.Event), holds && treeHolds(unsound, found), verdict})
	}
	if d.json() {
		if err := d.term.JSON(story); err != nil {
			return err
		}
		return unsound
	}
	d.storyCard(story)
	return unsound
}

// treeHolds is false when the record's bytes are not what was signed: then no event in it is.
func treeHolds(unsound error, found refold.Verified) bool {
	return unsound == nil || found.Failed != audit.NoIndex
}

func (d *desk) storyCard(story storyJSON) {
	card := term.Card{Title: string(story.ID)}
	for _, c := range story.Events {
		card.Fields = append(card.Fields,
			term.Field{Label: fmt.Sprintf("event %d", c.Index), Lines: []string{fmt.Sprintf("%s %s", c.At, c.Kind), strings.TrimSpace(c.Who + " " + c.What)}})
		card.Fields = append(card.Fields, term.Field{Lines: nonEmpty(c.Why), Quoted: true}, term.Field{Lines: []string{c.Verdict}})
	}
	d.term.Card(card)
}

// written is what a person wrote into the statement.
func written(event broker.Event) string {
	switch e := event.(type) {
	case *broker.RequestFiled:
		return reasonIn[statement.Request](e.Proof, func(r statement.Request) string { return r.Reason })
	case *broker.DecisionFiled:
		return reasonIn[statement.Decision](e.Proof, func(d statement.Decision) string { return d.Reason })
	case *broker.GrantRevoked:
		return e.Why
	}
	return ""
}

func reasonIn[B any](proof statement.Proof, reason func(B) string) string {
	var body B
	if err := statement.DecodeStrict(proof.Payload, &body); err != nil {
		return ""
	}
	return reason(body)
}

// decidesOn reports whether a refused statement was about a request.
func decidesOn(event broker.Event, stem broker.Stem) bool {
	refused, is := event.(*broker.StatementRefused)
	if !is {
		return false
	}
	if refused.Statement == statement.KindRequest {
		return broker.StemOf(refused.Hash) == stem
	}
	var about struct {
		Request string `json:"request"`
		Grant   string `json:"grant"`
	}
	if err := json.Unmarshal(refused.Proof.Payload, &about); err != nil { // the payload has more members
		return false
	}
	if hash, err := statement.ParseHash(about.Request); err == nil {
		return broker.StemOf(hash) == stem
	}
	return about.Request == string(stem.Request()) || about.Grant == string(stem.Grant())
}

// stemOf finds the one request in the record whose id starts with what was typed.
func stemOf(events []refold.Event, id string) (broker.Stem, error) {
	var found []broker.Stem
	for _, e := range events {
		stem := lineOf(e.Event).stem
		if refused, is := e.Event.(*broker.StatementRefused); is && refused.Statement == statement.KindRequest {
			stem = broker.StemOf(refused.Hash)
		}
		if stem != "" && strings.HasPrefix(string(stem), bareID(id)) && !slices.Contains(found, stem) {
			found = append(found, stem)
		}
	}
	switch len(found) {
	case 0:
		return "", missing("pim-ssh audit list", "the record has no request %s", id)
	case 1:
		return found[0], nil
	}
	return "", &broker.Error{Kind: broker.Conflict, Msg: fmt.Sprintf("%s could be %s or %s", id, found[0].Request(), found[1].Request()), Hint: "type more of the id"}
}
