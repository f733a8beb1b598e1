package api

import (
	"github.com/go-json-experiment/json/jsontext"

	"pim-ssh/broker"
	"pim-ssh/broker/statement"
)

// BeatEvery is how often, in seconds, a stream that has nothing to say says so. Three missed beats mean it is dead.
const BeatEvery = 5

// MaxFrame is the largest frame in bytes, newline included.
const MaxFrame = 4 << 20

// Frame is one line of a watch stream. Exactly one of Event, Policy, Restore, Dossier, Ended and Beat is set.
//
// A person's stream holds Event and Beat. A host's holds Policy, Restore, Dossier, Ended and Beat; where
// the brokers were ever restored it says so before any Dossier or Beat, wherever it begins. When the host's after was
// absent or unknown the stream opens with the whole policy chain and every live dossier of the host; those frames have
// no Index, and the beat that follows them says how far they reach: a stream cut before that beat starts over.
type Frame struct {
	Index   *uint64          `json:"index,omitzero"` // everything up to this log index has been said
	Event   jsontext.Value   `json:"event,omitzero"` // the event's own bytes: the audit leaf
	Policy  *statement.Proof `json:"policy,omitzero"`
	Restore *statement.Proof `json:"restore,omitzero"` // what began the newest epoch
	Dossier *broker.Dossier  `json:"dossier,omitzero"`
	Ended   *EndedFrame      `json:"ended,omitzero"`
	Beat    statement.Time   `json:"beat,omitzero"` // the broker's clock

	Checkpoint string `json:"checkpoint,omitzero"` // with a host's beat: the newest signed checkpoint of the broker's record
}

// EndedFrame says that a grant of this host was ended. It is a broker's word, and it can only take access away.
type EndedFrame struct {
	Request statement.Hash  `json:"request"` // of the request's payload: the tombstone's name
	How     broker.EndedHow `json:"how"`
	At      statement.Time  `json:"at"`
}

// whole reports whether exactly one thing is said.
func (f Frame) whole() bool {
	said := 0
	for _, is := range []bool{f.Event != nil, f.Policy != nil, f.Restore != nil, f.Dossier != nil, f.Ended != nil, f.Beat != 0} {
		if is {
			said++
		}
	}
	return said == 1 && (f.Checkpoint == "" || f.Beat != 0)
}
