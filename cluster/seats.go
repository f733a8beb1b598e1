package cluster

import (
	"strings"

	"github.com/hashicorp/raft"

	"pim-ssh/broker"
	"pim-ssh/broker/statement"
)

// Seat is one member of raft's configuration.
type Seat struct {
	Name  statement.BrokerName
	Disk  statement.Disk // none: the one it was bootstrapped with
	Votes bool
}

// id is what raft knows a seat by. None comes twice, because no disk does.
func (s Seat) id() raft.ServerID {
	if s.Disk == "" {
		return raft.ServerID(s.Name)
	}
	return raft.ServerID(string(s.Name) + "/" + string(s.Disk))
}

// seatOf takes a server's id apart.
func seatOf(id raft.ServerID) Seat {
	name, disk, _ := strings.Cut(string(id), "/")
	return Seat{Name: statement.BrokerName(name), Disk: statement.Disk(disk)}
}

// Seats returns raft's configuration as far as this node knows it, whoever leads: the newest one, committed or not.
func (n *Node) Seats() []Seat { return seatsOf(n.raft) }

func seatsOf(r *raft.Raft) []Seat {
	if r == nil {
		return nil
	}
	var seats []Seat
	for _, server := range r.GetConfiguration().Configuration().Servers {
		seat := seatOf(server.ID)
		seat.Votes = server.Suffrage == raft.Voter
		seats = append(seats, seat)
	}
	return seats
}

// Disk returns the id of this node's disk.
func (n *Node) Disk() statement.Disk { return n.door.disk }

// Status returns what this node says of itself to another one.
func (n *Node) Status() Status {
	said := Status{Disk: n.door.disk, Now: n.now(), Low: n.Low()}
	_ = n.machine.read(func(state *broker.State) { said.Events = state.Index() }) // a node that failed has nothing to say
	return said
}

// Refusals returns what other brokers answered this one lately in place of a greeting: why they do not speak to it.
func (n *Node) Refusals() map[statement.BrokerName]Refusal { return n.door.refusals() }
