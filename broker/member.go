package broker

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"pim-ssh/broker/policy"
	"pim-ssh/broker/statement"
)

// cluster is what operators said of who replicates the record, and under which rules. The zero value is a deployment under
// rules 1 whose founding brokers all stand. Its lists are replaced, never changed in place.
type cluster struct {
	Rules    int       `json:"rules,omitzero"`    // in force; 0 means 1, and 1 is never written
	Founding uint64    `json:"founding,omitzero"` // the policy revision whose brokers founded the cluster, or its epoch; 0: begun under rules 1, not known
	Members  []Member  `json:"members,omitempty"` // those added, sorted by name
	Removed  []Removal `json:"removed,omitempty"` // sorted by name and disk; kept for ever
	Epoch    *Epoch    `json:"epoch,omitempty"`   // the newest; nil: no restore ever
}

// Member is a broker that an operator added.
type Member struct {
	Name     statement.BrokerName `json:"name"`
	Disk     statement.Disk       `json:"disk"`
	Watching bool                 `json:"watching,omitzero"` // it follows and never votes
	By       statement.Person     `json:"by"`                // the operator
	At       statement.Time       `json:"at"`
	Index    uint64               `json:"index"` // of its BrokerAdded
}

// Removal is a disk that may never be a member again.
type Removal struct {
	Name  statement.BrokerName `json:"name"`
	Disk  statement.Disk       `json:"disk,omitzero"` // none: the one the broker was founded with
	By    statement.Person     `json:"by,omitzero"`   // the operator; none: a policy that no longer lists the broker
	At    statement.Time       `json:"at"`
	Index uint64               `json:"index"` // of the event that removed it
}

// Standing is what a broker's disk is to the cluster.
type Standing int

// The closed set of standings. The zero value is nothing.
const (
	Unlisted  Standing = iota // the policy lists no such broker
	Listed                    // listed, and nothing was said of this disk: it founded the cluster, or waits for an operator's add
	OtherDisk                 // an operator added the broker with another disk
	Removed                   // this disk was removed, for ever
	Watching                  // added without a vote
	Voter                     // added with a vote
)

// String returns the word for the standing.
func (s Standing) String() string {
	switch s {
	case Listed:
		return "listed"
	case OtherDisk:
		return "other disk"
	case Removed:
		return "removed"
	case Watching:
		return "watching"
	case Voter:
		return "voter"
	default:
		return "unlisted"
	}
}

// Rules returns the version of the rules in force: a command made under others is not decided.
func (s *State) Rules() int { return max(1, s.cluster.Rules) }

// Standing returns what a broker is to the cluster, by the disk it was added with; "" is the disk that it was bootstrapped
// with. Which of the Listed with no disk really are founding brokers is for the holder of the founding chain to say.
func (s *State) Standing(name statement.BrokerName, disk statement.Disk) Standing {
	m, member := s.member(name)
	_, listed := s.chain.Current().Brokers[name]
	_, removed := s.Removal(name, disk)
	switch {
	case removed:
		return Removed
	case !listed:
		return Unlisted
	case !member:
		return Listed
	case m.Disk != disk:
		return OtherDisk
	case m.Watching:
		return Watching
	default:
		return Voter
	}
}

// Members returns the brokers that operators added, sorted by name. Founding brokers are not among them.
func (s *State) Members() []Member { return slices.Clone(s.cluster.Members) }

// Removal returns who removed a disk, and when; "" is the disk that the broker was bootstrapped with.
func (s *State) Removal(name statement.BrokerName, disk statement.Disk) (Removal, bool) {
	at, removed := slices.BinarySearchFunc(s.cluster.Removed, Removal{Name: name, Disk: disk}, compareRemovals)
	if !removed {
		return Removal{}, false
	}
	return s.cluster.Removed[at], true
}

// Removals returns every disk that was removed, sorted by name and disk.
func (s *State) Removals() []Removal { return slices.Clone(s.cluster.Removed) }

// Under returns the command under the rules that this state decides it by: those in force, or the next for an operator's
// statement that raises to them. The first command of a deployment begins it under the newest.
func (c Command) Under(s *State) Command {
	c.Rules = s.Rules()
	switch {
	case s.index == 0:
		c.Rules = Rules
	case c.Kind == BeginEpoch:
		c.Rules = max(2, c.Rules) // rules 1 know no epochs, and every restored broker knows rules 2
	case c.Kind == RaiseRules && c.Rules < Rules:
		if b := bodyOf[statement.Cluster](c.Proof); b.Rules == c.Rules+1 && s.chain.Current().Operator(b.Person) {
			c.Rules++
		}
	}
	return c
}

// checkRules holds a command to the rules in force. What an older pim-brokerd would do with rules it does not know is stop;
// so a command under other rules than these must come from a leader in wrong hands, or crossed a raise on its way.
func (s *State) checkRules(c Command) error {
	inForce := s.Rules()
	switch {
	case c.Rules > Rules:
		return fmt.Errorf("rules %d: %w", c.Rules, ErrUnknownVersion)
	case s.index == 0 && c.Rules > 0, c.Rules == inForce, c.Kind == RaiseRules && c.Rules == inForce+1, c.Kind == BeginEpoch && c.Rules == max(2, inForce):
		return nil
	default:
		return Refuse(Unavailable, "try again in a moment", "made under rules %d, and rules %d are in force", c.Rules, inForce)
	}
}

// cluster decides a cluster statement. Under rules 1 it is what it is to a build that knows no others: nothing to file. A
// raise that is refused leaves no event: the command stops every broker that does not know its rules, so none is made of it.
func (t *turn) cluster(c Command) (Outcome, error) {
	if t.rules < 2 && c.Kind == RaiseRules {
		return Outcome{}, Refuse(Invalid, "upgrade pim-brokerd on all of them first", "rules 1 are in force, and the broker that leads can raise them to no others")
	}
	if t.rules < 2 {
		return Outcome{}, Refuse(Invalid, "an operator raises them first: pim-ssh cluster rules 2", "rules 1 are in force, and know no cluster statements")
	}
	out, err := t.statement(c)
	if err != nil && t.rules > t.s.Rules() {
		t.events = nil
	}
	if err == nil && out == (Outcome{}) {
		m, _ := t.s.member(bodyOf[statement.Cluster](c.Proof).Broker)
		out.Index = m.Index // it was added before, in other words
	}
	return out, err
}

// CheckAdded verifies the statement by which an operator adds a broker. Whether it was filed, and whether the disk was removed
// since, is for the log to say.
func CheckAdded(c policy.Chain, p statement.Proof) (statement.Cluster, error) {
	body, o, err := openStatement[statement.Cluster](c, p)
	if err != nil {
		return statement.Cluster{}, err
	}
	if err := speaks(c.Current(), o); err != nil {
		return statement.Cluster{}, err
	}
	if body.Action != statement.Add || !c.Current().Operator(body.Person) {
		return statement.Cluster{}, Refuse(Denied, "ask an operator", "no operator adds a broker with this statement of %s", body.Person)
	}
	return body, nil
}

// changeCluster decides an operator's word on who replicates the record. Who asks is looked at before the state is.
func (t *turn) changeCluster(b statement.Cluster, p statement.Proof) error {
	if !t.chain.Current().Operator(b.Person) {
		return Refuse(Denied, "ask an operator", "%s is no operator", b.Person)
	}
	switch b.Action {
	case statement.Add:
		return t.addBroker(b, p)
	case statement.Remove:
		return t.removeBroker(b, p)
	default:
		return t.raiseRules(b, p)
	}
}

func (t *turn) addBroker(b statement.Cluster, p statement.Proof) error {
	first := "pim-ssh cluster remove " + string(b.Broker)
	if _, listed := t.chain.Current().Brokers[b.Broker]; !listed {
		return Refuse(Missing, "a steward lists it first: pim-ssh policy sign", "the policy lists no broker %s", b.Broker)
	}
	if owner, used := t.s.owner(b.Disk); used && owner != b.Broker {
		return Refuse(Conflict, "make a new one: pim-brokerd quarantine, then pim-brokerd join", "disk %s is broker %s's", b.Disk, owner)
	}
	if r, removed := t.s.Removal(b.Broker, b.Disk); removed {
		return Refuse(Conflict, "make a new one: pim-brokerd quarantine, then pim-brokerd join", "disk %s of %s was removed at %s and never comes back", b.Disk, b.Broker, r.At)
	}
	m, member := t.s.member(b.Broker)
	switch {
	case !member && t.s.mayHaveFounded(b.Broker):
		return Refuse(Conflict, first, "%s is a member with the disk it was founded with", b.Broker)
	case member && m.Disk != b.Disk:
		return Refuse(Conflict, first, "%s is a member with disk %s", b.Broker, m.Disk)
	case member && !m.Watching && b.Watching:
		return Refuse(Conflict, first, "%s has a vote", b.Broker)
	case member && m.Watching == b.Watching:
		return nil
	}
	t.add(&BrokerAdded{Broker: b.Broker, Disk: b.Disk, Watching: b.Watching, Person: b.Person, Proof: p})
	return nil
}

func (t *turn) removeBroker(b statement.Cluster, p statement.Proof) error {
	const look = "pim-ssh cluster status"
	if r, removed := t.s.Removal(b.Broker, b.Disk); removed {
		return Refuse(Conflict, look, "%s was removed at %s", b.Broker, r.At)
	}
	m, member := t.s.member(b.Broker)
	switch {
	case member && m.Disk != b.Disk:
		return Refuse(Conflict, look, "%s is a member with disk %s", b.Broker, m.Disk)
	case !member && (b.Disk != "" || !t.s.mayHaveFounded(b.Broker)):
		return Refuse(Missing, look, "%s is no member", b.Broker)
	case !m.Watching && !slices.ContainsFunc(t.s.voters(t.chain), func(name statement.BrokerName) bool { return name != b.Broker }):
		return Refuse(Conflict, "add another one first: pim-ssh cluster add", "%s has the last vote", b.Broker)
	}
	t.add(&BrokerRemoved{Broker: b.Broker, Disk: b.Disk, Person: b.Person, Proof: p})
	return nil
}

// raiseRules raises one version at a time, and only by a command made under the new one: it stops every broker that does
// not know them.
func (t *turn) raiseRules(b statement.Cluster, p statement.Proof) error {
	switch inForce := t.s.Rules(); {
	case b.Rules <= inForce:
		return Refuse(Conflict, "pim-ssh cluster status", "rules %d are in force", inForce)
	case b.Rules > inForce+1:
		return Refuse(Invalid, fmt.Sprintf("pim-ssh cluster rules %d", inForce+1), "rules are raised one by one, and %d are in force", inForce)
	case b.Rules != t.rules:
		return Refuse(Conflict, "upgrade pim-brokerd on all of them first", "the broker that leads does not know rules %d", b.Rules)
	}
	t.add(&RulesRaised{Rules: b.Rules, Person: b.Person, Proof: p})
	return nil
}

// member returns the broker as an operator added it.
func (s *State) member(name statement.BrokerName) (Member, bool) {
	at, member := slices.BinarySearchFunc(s.cluster.Members, name, compareMember)
	if !member {
		return Member{}, false
	}
	return s.cluster.Members[at], true
}

func compareMember(m Member, name statement.BrokerName) int {
	return strings.Compare(string(m.Name), string(name))
}

func compareRemovals(a, b Removal) int {
	if by := strings.Compare(string(a.Name), string(b.Name)); by != 0 {
		return by
	}
	return strings.Compare(string(a.Disk), string(b.Disk))
}

// owner returns which broker was ever added with a disk.
func (s *State) owner(disk statement.Disk) (statement.BrokerName, bool) {
	for _, m := range s.cluster.Members {
		if m.Disk == disk {
			return m.Name, true
		}
	}
	for _, r := range s.cluster.Removed {
		if r.Disk == disk {
			return r.Name, true
		}
	}
	return "", false
}

// mayHaveFounded reports whether a broker may be a member since the beginning. A deployment that began under rules 1 does not
// know where its founding chain ended, only that it came before everything but policies.
func (s *State) mayHaveFounded(name statement.BrokerName) bool {
	if _, removed := s.Removal(name, ""); removed {
		return false
	}
	if s.cluster.Founding > 0 {
		doc, known := s.chain.At(s.cluster.Founding)
		return known && lists(doc, name)
	}
	for i, index := range s.adopted {
		if index != uint64(i) {
			return false
		}
		if doc, known := s.chain.At(uint64(i) + 1); known && lists(doc, name) {
			return true
		}
	}
	return false
}

func lists(doc *policy.Document, name statement.BrokerName) bool {
	_, listed := doc.Brokers[name]
	return listed
}

// voters returns who votes, or may, among the brokers that a chain's current policy lists; sorted.
func (s *State) voters(c policy.Chain) []statement.BrokerName {
	var names []statement.BrokerName
	for _, name := range slices.Sorted(maps.Keys(c.Current().Brokers)) {
		m, member := s.member(name)
		if member && !m.Watching || !member && s.mayHaveFounded(name) {
			names = append(names, name)
		}
	}
	return names
}

// admit makes a broker a member, or gives a member its vote.
func (s *State) admit(e *BrokerAdded) {
	m := Member{Name: e.Broker, Disk: e.Disk, Watching: e.Watching, By: e.Person, At: e.At, Index: e.Index}
	at, member := slices.BinarySearchFunc(s.cluster.Members, e.Broker, compareMember)
	members := slices.Clone(s.cluster.Members)
	if member {
		members[at] = m
	} else {
		members = slices.Insert(members, at, m)
	}
	s.cluster.Members = members
}

// expel removes a disk for ever.
func (s *State) expel(r Removal) {
	at, before := slices.BinarySearchFunc(s.cluster.Removed, r, compareRemovals)
	if !before {
		s.cluster.Removed = slices.Insert(slices.Clone(s.cluster.Removed), at, r)
	}
	s.cluster.Members = slices.DeleteFunc(slices.Clone(s.cluster.Members), func(m Member) bool { return m.Name == r.Name && m.Disk == r.Disk })
}

// dropUnlisted removes for ever what a policy just adopted no longer lists: a broker that is listed again later is another
// one. The founding chain may still list and drop as it likes.
func (s *State) dropUnlisted(before map[statement.BrokerName]policy.Broker, e *PolicyAdopted) {
	if s.Rules() < 2 || s.founds(e.Revision, e.Index) {
		return
	}
	for _, name := range slices.Sorted(maps.Keys(before)) {
		if lists(s.chain.Current(), name) {
			continue
		}
		if m, member := s.member(name); member || s.mayHaveFounded(name) {
			s.expel(Removal{Name: name, Disk: m.Disk, At: e.At, Index: e.Index})
		}
	}
}

// founds reports whether a revision, adopted at an index, belongs to the founding chain, or may.
func (s *State) founds(revision, index uint64) bool {
	if s.cluster.Founding > 0 {
		return revision <= s.cluster.Founding
	}
	return index < revision
}

// check holds a decoded value to its one spelling and to the rules this code knows.
func (c cluster) check() error {
	if c.Rules > Rules {
		return fmt.Errorf("state under rules %d: %w", c.Rules, ErrUnknownVersion)
	}
	ordered := inOrder(c.Members, func(a, b Member) int { return compareMember(a, b.Name) }) && inOrder(c.Removed, compareRemovals)
	if c.Rules == 1 || c.Rules < 0 || c.Rules == 0 && (c.Founding > 0 || len(c.Members)+len(c.Removed) > 0 || c.Epoch != nil) || !ordered || !c.Epoch.sound() {
		return errors.New("state: the cluster is not in canonical form")
	}
	return nil
}

func inOrder[T any](list []T, compare func(a, b T) int) bool {
	for i := 1; i < len(list); i++ {
		if compare(list[i-1], list[i]) >= 0 {
			return false
		}
	}
	return true
}
