package policy

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"

	"pim-ssh/broker/statement"
)

// Draft returns the canonical payload that stewards sign: lists sorted, every field written, Check passed.
// Version and kind may be left zero. The document itself stays as it is.
func Draft(doc Document) ([]byte, error) {
	if doc.V == 0 && doc.Kind == "" {
		doc.V, doc.Kind = doc.words(), statement.KindPolicy
	}
	doc = doc.Sorted()
	if err := doc.Check(); err != nil {
		return nil, err
	}
	payload, err := encode(&doc)
	if err != nil {
		return nil, err
	}
	if len(payload) > statement.MaxPolicy {
		return nil, fmt.Errorf("policy is %d bytes long, more than the %d it may be", len(payload), statement.MaxPolicy)
	}
	return payload, nil
}

// Size returns how many bytes the document has, at the most, once it is drafted: as many as it has now, and room for what only
// Chain.Next fills in.
func (d *Document) Size() int {
	const filledIn = 200
	payload, err := encode(d)
	if err != nil {
		return 0 // Draft will say so
	}
	return len(payload) + filledIn
}

// Parse reads a payload strictly: unknown, missing, duplicate or trailing data and any spelling but the canonical one are
// refused, and Check must pass. Nothing is said about who signed it.
func Parse(payload []byte) (*Document, error) {
	doc := new(Document)
	if err := statement.DecodeStrict(payload, doc); err != nil {
		return nil, fmt.Errorf("policy: %w", err)
	}
	again, err := encode(doc)
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(again, payload) {
		return nil, fmt.Errorf("policy is not in canonical form: it differs from its own encoding at byte %d", firstDifference(again, payload))
	}
	if err := doc.Check(); err != nil {
		return nil, err
	}
	doc.index()
	return doc, nil
}

// open verifies a proof's signatures and parses what they cover.
func open(p statement.Proof) (*Document, []statement.Signer, error) {
	signers, err := statement.OpenPayload(statement.KindPolicy, p)
	if err != nil {
		return nil, nil, fmt.Errorf("policy: %w", err)
	}
	doc, err := Parse(p.Payload)
	if err != nil {
		return nil, nil, err
	}
	return doc, signers, nil
}

// encode is the one spelling of a document: struct fields in declaration order, map keys sorted, nil lists as [].
func encode(doc *Document) ([]byte, error) {
	payload, err := json.Marshal(doc, json.Deterministic(true))
	if err != nil {
		return nil, fmt.Errorf("encode policy: %w", err)
	}
	return payload, nil
}

func firstDifference(a, b []byte) int {
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return i
		}
	}
	return min(len(a), len(b))
}

// Sorted returns the document with its lists sorted, as Check wants them; the receiver stays as it is.
func (d Document) Sorted() Document {
	d.People, d.Groups, d.Roles, d.owners = maps.Clone(d.People), maps.Clone(d.Groups), maps.Clone(d.Roles), nil
	for person, entry := range d.People {
		entry.Keys = slices.Sorted(slices.Values(entry.Keys))
		d.People[person] = entry
	}
	for group, people := range d.Groups {
		d.Groups[group] = slices.Sorted(slices.Values(people))
	}
	d.Stewards.People = slices.Sorted(slices.Values(d.Stewards.People))
	d.Operators = slices.Sorted(slices.Values(d.Operators))
	d.Auditors = slices.Sorted(slices.Values(d.Auditors))
	for name, role := range d.Roles {
		d.Roles[name] = role.sorted()
	}
	return d
}

func (r Role) sorted() Role {
	r.Hosts.Names = slices.Sorted(slices.Values(r.Hosts.Names))
	r.Accounts = slices.Sorted(slices.Values(r.Accounts))
	r.Eligible = slices.Sorted(slices.Values(r.Eligible))
	r.Approvals.From = slices.Sorted(slices.Values(r.Approvals.From))
	r.Sudo = slices.Clone(r.Sudo)
	for i := range r.Sudo {
		r.Sudo[i].Commands = slices.Sorted(slices.Values(r.Sudo[i].Commands))
	}
	slices.SortStableFunc(r.Sudo, func(a, b SudoRule) int { return strings.Compare(string(a.As), string(b.As)) })
	return r.sortedLimits()
}
