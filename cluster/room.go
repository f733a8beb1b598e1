package cluster

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"pim-ssh/broker"
	"pim-ssh/broker/statement"
)

// roomEvery is how often the room on the disk is looked at, and how late a leader knows of the others'.
const roomEvery = 2 * time.Second

// room is what the broker that leads knows of the disks.
type room struct {
	mu     sync.Mutex
	lows   []statement.BrokerName // voters whose disk is almost full, this one among them; sorted
	rooms  []Seat                 // voters that have answered that theirs is not
	votes  int
	yield  time.Time // before this leadership is not handed over for lack of room again
	warned bool
}

// watchRoom keeps the reserve full and asks the others about theirs, until the node closes.
func (n *Node) watchRoom() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	look := time.NewTicker(roomEvery)
	defer look.Stop()
	go func() {
		<-n.closing
		cancel()
	}()
	for {
		n.lookAround(ctx)
		select {
		case <-look.C:
		case <-n.closing:
			return
		}
	}
}

func (n *Node) lookAround(ctx context.Context) {
	if err := n.reserve.fill(); err != nil {
		n.log.Error("no room could be kept for ending access", "error", err)
	}
	low := n.Low()
	n.room.mu.Lock()
	if low != n.room.warned {
		n.room.warned = low
		n.log.Error("DISK ALMOST FULL: what could lead to access is recorded only while a majority of the brokers has room", "full", low, "dir", n.reserve.dir)
	}
	n.room.mu.Unlock()
	if n.raft.State() == raft.Leader {
		n.askForRoom(ctx, low)
	}
}

// askForRoom asks every voter how it is. One of an earlier build does not say.
func (n *Node) askForRoom(ctx context.Context, low bool) {
	seats := slices.DeleteFunc(n.Seats(), func(s Seat) bool { return !s.Votes })
	answers := make([]Status, len(seats))
	silent := make([]bool, len(seats))
	var asked sync.WaitGroup
	for i, seat := range seats {
		if seat.id() == n.id {
			answers[i].Low = low
			continue
		}
		asked.Go(func() {
			status, err := n.ask(ctx, seat.Name)
			answers[i], silent[i] = status, err != nil && broker.KindOf(err) != broker.Missing
		})
	}
	asked.Wait()
	n.room.mu.Lock()
	defer n.room.mu.Unlock()
	n.room.lows, n.room.rooms, n.room.votes = nil, nil, len(seats)
	for i, seat := range seats {
		switch {
		case silent[i]:
		case answers[i].Low:
			n.room.lows = append(n.room.lows, seat.Name)
		case seat.id() != n.id:
			n.room.rooms = append(n.room.rooms, seat)
		}
	}
	slices.Sort(n.room.lows)
}

// Low reports whether this broker's disk is almost full.
func (n *Node) Low() bool { return n.reserve.low() }

// spare refuses a command that needs more room than there is: what could lead to access, unless a majority of the brokers
// has room; what hosts tell, when half of the reserve here is used. A leader without room lets one lead that has some.
func (n *Node) spare(need broker.Room) error {
	low := n.Low()
	n.room.mu.Lock()
	defer n.room.mu.Unlock()
	lows, rooms := n.room.lows, len(n.room.rooms)
	if !low {
		rooms++
		lows = slices.DeleteFunc(slices.Clone(lows), func(name statement.BrokerName) bool { return name == n.name })
	} else if !slices.Contains(lows, n.name) {
		lows = append(slices.Clone(lows), n.name)
	}
	enough := len(lows) == 0 || rooms > n.room.votes/2
	switch need {
	case broker.RoomLeast:
		return nil
	case broker.RoomSome:
		if !n.reserve.half() {
			return nil
		}
	default:
		if enough && low {
			n.yieldRoom()
		} else if enough {
			return nil
		}
	}
	return &broker.Error{Kind: broker.Unavailable, Msg: fmt.Sprintf("the disk is almost full on %s: only what ends access is recorded", names(lows)),
		Hint: "free space there"}
}

// yieldRoom lets a broker lead whose disk has room. The caller holds the room's lock.
func (n *Node) yieldRoom() {
	if time.Now().Before(n.room.yield) {
		return
	}
	n.room.yield = time.Now().Add(yieldEvery)
	to := n.room.rooms[0]
	n.log.Warn("this broker's disk is almost full: one that has room is to lead", "broker", to.Name)
	n.raft.LeadershipTransferToServer(to.id(), raft.ServerAddress(to.Name)) // settles by itself
}

func names(all []statement.BrokerName) string {
	text := make([]string, len(all))
	for i, name := range all {
		text[i] = string(name)
	}
	return strings.Join(text, ", ")
}
