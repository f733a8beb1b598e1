package broker

import "pim-ssh/broker/statement"

// Room is how much room there must be on a broker's disk for a command to be recorded.
type Room int

// The closed set of rooms. The zero value is the greatest: what is not known to do less could lead to access.
const (
	RoomPlenty Room = iota // it could lead to access
	RoomSome               // it tells what a host saw; there may be many of these
	RoomLeast              // it takes access away, or says who keeps the record
)

// Room returns how much room a command needs. What could lead to access is refused while a disk is almost full, so that
// ending access can still be recorded.
func (c Command) Room() Room {
	switch c.Kind {
	case EndAccess, Tick, ChangeCluster, BeginEpoch, ReviewGrant:
		return RoomLeast
	case FileDecision:
		if bodyOf[statement.Decision](c.Proof).Verdict == statement.Deny {
			return RoomLeast
		}
		return RoomPlenty
	case ReportHost:
		return RoomSome
	case FileRequest, IssueCertificate, AdoptPolicy, EnrolHost, RaiseRules, ChangeFactor, AskRenewal:
		return RoomPlenty
	default:
		return RoomPlenty
	}
}
