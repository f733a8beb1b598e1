package api

import (
	"context"
	"fmt"
	"strconv"

	"github.com/go-json-experiment/json"

	"pim-ssh/broker"
	"pim-ssh/broker/policy"
	"pim-ssh/broker/statement"
)

// PeerStatus answers GET /v1/peer/status: what a broker says of itself. It asks nobody for it, so it may be behind.
type PeerStatus struct {
	Name    statement.BrokerName            `json:"name"`
	Disk    statement.Disk                  `json:"disk"`
	Events  uint64                          `json:"events"`         // applied
	Rules   int                             `json:"rules"`          // the newest it understands
	Version string                          `json:"version"`        // of its pim-brokerd
	Low     bool                            `json:"low"`            // its disk is almost full
	Now     statement.Time                  `json:"now"`            // its clock
	Told    map[statement.BrokerName]string `json:"told,omitempty"` // by others, in place of an answer: why they do not speak to it

	Policies []statement.Proof `json:"policies,omitempty"` // that it knows after the one that it was asked about, the next one first
}

// Place is where a broker stands, in the words of pim-ssh cluster status.
type Place string

// The closed set of places.
const (
	PlaceVoter    Place = "voter"
	PlaceWatching Place = "watching"    // a member without a vote, for good
	PlaceCatching Place = "catching up" // a member that gets its vote once it has the whole record
	PlaceListed   Place = "listed"      // the policy lists it; an operator has not added it
	PlaceRemoved  Place = "removed"     // it comes back with a new disk only
	PlaceLeaving  Place = "leaving"     // no member any more; the leader is about to let it go
)

// Cluster answers GET /v1/cluster.
type Cluster struct {
	Leader  statement.BrokerName `json:"leader,omitzero"` // none: nobody leads as far as the one that was asked knows
	Asked   statement.BrokerName `json:"asked,omitzero"`  // whose view this is
	Rules   int                  `json:"rules"`           // in force
	Epoch   uint64               `json:"epoch"`           // 0: nothing was ever restored
	Events  uint64               `json:"events"`          // how many there are
	Brokers []BrokerView         `json:"brokers"`
}

// BrokerView is one broker as the one that was asked sees it. What follows Reachable is the broker's own word.
type BrokerView struct {
	Name      statement.BrokerName            `json:"name"`
	Address   string                          `json:"address"` // "" when the policy no longer lists it
	Place     Place                           `json:"standing"`
	Disk      statement.Disk                  `json:"disk,omitzero"` // that it was added with; of one that was not, its own word
	Founding  bool                            `json:"founding"`
	Reachable bool                            `json:"reachable"`
	Why       string                          `json:"why,omitzero"` // it does not answer
	Behind    uint64                          `json:"behind"`       // events
	Rules     int                             `json:"rules"`
	Version   string                          `json:"version"`
	Low       bool                            `json:"low"`
	Ahead     statement.Seconds               `json:"clock_ahead"` // of the clock of the broker that was asked
	Told      map[statement.BrokerName]string `json:"told,omitempty"`
}

// Cluster returns how the brokers are, as one of them sees it; for operators and auditors.
func (c *Client) Cluster(ctx context.Context) (Cluster, error) {
	var answer Cluster
	err := c.get(ctx, "/v1/cluster", &answer)
	return answer, err
}

// Status asks a broker how it is, and which policies it knows after a revision. Members that a later build adds are passed over: brokers of two builds must be able to ask
// each other. A broker that answers as another one is not believed.
func (p *Peers) Status(ctx context.Context, name statement.BrokerName, to policy.Broker, revision uint64) (PeerStatus, error) {
	var data []byte
	if err := p.get(ctx, to, "/v1/peer/status?after="+strconv.FormatUint(revision, 10), &data); err != nil {
		return PeerStatus{}, err
	}
	var answer PeerStatus
	if err := json.Unmarshal(data, &answer); err != nil {
		return PeerStatus{}, &broker.Error{Kind: broker.Invalid, Msg: fmt.Sprintf("the answer of %s is not understood", name), Err: err}
	}
	if answer.Name != name {
		return PeerStatus{}, broker.Refuse(broker.Invalid, "look at its address in the policy", "%.70q answers as %s", answer.Name, name)
	}
	return answer, nil
}
