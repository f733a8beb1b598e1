package broker

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/go-json-experiment/json"

	"pim-ssh/broker/policy"
	"pim-ssh/broker/statement"
)

// StateVersion is the only state encoding this code understands.
const StateVersion = 1

// snapshot is the one encoding of a state: lists are sorted by what identifies their members.
type snapshot struct {
	V        int               `json:"v"`
	Index    uint64            `json:"index"`
	Now      statement.Time    `json:"now"`
	Policy   []statement.Proof `json:"policy"`
	Adopted  []uint64          `json:"adopted"`
	Forked   uint64            `json:"forked"`
	Requests []*Request        `json:"requests"`
	Hosts    []*Enrolled       `json:"hosts"`
	Seen     []*seen           `json:"seen"`
	Cluster  cluster           `json:"cluster,omitempty"` // absent under rules 1: an older build reads and writes the same bytes
	Factors  []*factor         `json:"factors,omitempty"` // absent under rules 1 and 2, as what follows
	Spent    []*spent          `json:"spent,omitempty"`
	Reviews  []Review          `json:"reviews,omitempty"`
	Renewals []Renewal         `json:"renewals,omitempty"`
}

// Digest returns one hash of the state: equal states, equal digests, on every broker. It costs a few milliseconds at ten
// thousand hosts, because every record carries its own hash; the newest policy's hash stands for the chain it follows.
func (s *State) Digest() statement.Hash {
	var requests, hosts, firsts []statement.Hash
	for _, r := range s.requests {
		requests = append(requests, r.sum)
	}
	for _, h := range s.hosts {
		hosts = append(hosts, h.sum)
	}
	for _, first := range s.seen {
		firsts = append(firsts, first.sum)
	}
	parts := []any{StateVersion, s.index, s.now, s.chain.Ref(), s.adopted, s.forked, hashSet(requests), hashSet(hosts), hashSet(firsts)}
	if s.Rules() > 1 {
		parts = append(parts, s.cluster)
	}
	if s.Rules() > 2 {
		parts = append(parts, s.limits())
	}
	return hashOf(parts)
}

// limits returns what the digest covers of what rules 3 brought.
func (s *State) limits() []any {
	var factors, spans []statement.Hash
	for _, f := range s.factors {
		factors = append(factors, f.sum)
	}
	for _, held := range s.spent {
		spans = append(spans, held.sum)
	}
	return []any{hashSet(factors), hashSet(spans), s.Reviews(), s.Renewals()}
}

// hashSet returns one hash of a set of hashes.
func hashSet(set []statement.Hash) statement.Hash {
	slices.SortFunc(set, func(a, b statement.Hash) int { return bytes.Compare(a[:], b[:]) })
	all := make([]byte, 0, len(set)*len(statement.Hash{}))
	for _, h := range set {
		all = append(all, h[:]...)
	}
	return statement.HashOf(all)
}

// hashOf returns the hash of a value's one encoding.
func hashOf(value any) statement.Hash {
	data, err := json.Marshal(value, json.Deterministic(true))
	if err != nil {
		return statement.Hash{} // no event that parses leads here
	}
	return statement.HashOf(data)
}

// EncodeState returns the state's one spelling, for snapshots.
func EncodeState(s *State) ([]byte, error) {
	form := snapshot{V: StateVersion, Index: s.index, Now: s.now, Policy: s.chain.Proofs(), Adopted: s.adopted, Forked: s.forked, Cluster: s.cluster, Reviews: s.Reviews(), Renewals: s.Renewals()}
	form.Factors = slices.SortedFunc(maps.Values(s.factors), func(a, b *factor) int { return cmp.Compare(a.Person, b.Person) })
	form.Spent = slices.SortedFunc(maps.Values(s.spent), compareSpent)
	for _, stem := range slices.Sorted(maps.Keys(s.requests)) {
		form.Requests = append(form.Requests, s.requests[stem])
	}
	for _, name := range slices.Sorted(maps.Keys(s.hosts)) {
		form.Hosts = append(form.Hosts, s.hosts[name])
	}
	for _, first := range s.seen {
		form.Seen = append(form.Seen, first)
	}
	slices.SortFunc(form.Seen, func(a, b *seen) int { return bytes.Compare(a.Hash[:], b.Hash[:]) })
	data, err := json.Marshal(form, json.Deterministic(true))
	if err != nil {
		return nil, fmt.Errorf("state at index %d: %w", s.index, err)
	}
	return data, nil
}

// DecodeState reads a snapshot strictly and verifies the policy chain in it again. Bytes that are not the encoding of the
// state they describe are refused; another version is ErrUnknownVersion.
func DecodeState(data []byte) (*State, error) {
	var head struct {
		V int `json:"v"`
	}
	if err := json.Unmarshal(data, &head); err != nil {
		return nil, fmt.Errorf("state: %w", err)
	}
	if head.V != StateVersion {
		return nil, fmt.Errorf("state version %d: %w", head.V, ErrUnknownVersion)
	}
	var form snapshot
	if err := statement.DecodeStrict(data, &form); err != nil {
		return nil, fmt.Errorf("state: %w", err)
	}
	s, err := form.state()
	if err != nil {
		return nil, err
	}
	again, err := EncodeState(s)
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(again, data) {
		return nil, errors.New("state: not in canonical form")
	}
	return s, nil
}

// state builds the state, derived parts included.
func (form snapshot) state() (*State, error) {
	s := NewState()
	s.index, s.now, s.adopted, s.forked, s.cluster = form.Index, form.Now, form.Adopted, form.Forked, form.Cluster
	if err := form.Cluster.check(); err != nil {
		return nil, err
	}
	if len(form.Adopted) != len(form.Policy) {
		return nil, fmt.Errorf("state: %d policy revisions, %d adopted", len(form.Policy), len(form.Adopted))
	}
	var err error
	if s.chain, err = chainOf(form.Policy); err != nil {
		return nil, fmt.Errorf("state: %w", err)
	}
	slices.SortFunc(form.Requests, func(a, b *Request) int { return cmp.Compare(a.Index, b.Index) })
	for _, r := range form.Requests {
		if r.ID != r.Dossier.Stem().Request() {
			return nil, fmt.Errorf("state: request %s is not what its bytes say", r.ID)
		}
		s.list(r)
	}
	for _, h := range form.Hosts {
		s.register(h)
	}
	for _, first := range form.Seen {
		s.keep(first)
	}
	for _, f := range form.Factors {
		s.know(f)
	}
	for _, held := range form.Spent {
		s.count(held)
	}
	for _, r := range form.Reviews {
		s.reviews[r.Grant] = r
	}
	for _, r := range form.Renewals {
		s.renewals[spender{r.Person, r.Role}] = r
	}
	return s, nil
}

// chainOf verifies a chain from its first revision on; no proofs give the zero chain.
func chainOf(proofs []statement.Proof) (policy.Chain, error) {
	var c policy.Chain
	var err error
	for _, p := range proofs {
		if c, err = advance(c, p); err != nil {
			return policy.Chain{}, err
		}
	}
	return c, nil
}
