package cluster

import (
	"strings"

	"github.com/hashicorp/raft"

	"pim-ssh/broker/statement"
)

// Seat is one member of raft's configuration.
type Seat struct {
	Name  statement.BrokerName
	Disk  statement.Disk // none: the one it was bootstrapped with
	Votes bool
}

// Seats returns raft's configuration as far as this node knows it, whoever leads: the newest one, committed or not.
func (n *Node) Seats() ([]Seat, error) {
	future := n.raft.GetConfiguration()
	if err := future.Error(); err != nil {
		return nil, unavailable(err)
	}
	var seats []Seat
	for _, server := range future.Configuration().Servers {
		name, disk, _ := strings.Cut(string(server.ID), "/")
		seats = append(seats, Seat{Name: statement.BrokerName(name), Disk: statement.Disk(disk), Votes: server.Suffrage == raft.Voter})
	}
	return seats, nil
}

// Disk returns the id of this node's disk.
func (n *Node) Disk() statement.Disk { return statement.Disk(n.door.disk) }
