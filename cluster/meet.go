package cluster

import (
	"time"

	"pim-ssh/broker/statement"
)

// meetEvery is how often brokers that were never met are dialled.
const meetEvery = 1 * time.Second

// meet dials every other broker until all have greeted: a disk can only be missed by those who knew it.
func (n *Node) meet() {
	again := time.NewTicker(meetEvery)
	defer again.Stop()
	for {
		left := 0
		for _, other := range n.begin.voters().Servers {
			if name := statement.BrokerName(other.ID); name == n.name || n.door.knows(name) {
				continue
			}
			left++
			if conn, err := n.wire.reach.Dial(other.Address, meetEvery); err == nil {
				conn.Close()
			}
		}
		if left == 0 {
			return
		}
		select {
		case <-again.C:
		case <-n.closing:
			return
		}
	}
}
