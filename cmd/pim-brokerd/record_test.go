package main

import (
	"os"
	"path/filepath"
	"time"

	"pim-ssh/broker/audit"
	"pim-ssh/broker/audit/refold"
	"pim-ssh/packaging/lab/forger"
)

// checkRecord audits the running broker's record whole, against what it signed before, and the copy on its disk too. It
// returns the checkpoint.
func (p *process) checkRecord(before ...audit.Signed) audit.Signed {
	p.t.Helper()
	var newest audit.Signed
	for _, source := range []audit.Source{p.as("frank").Record(p.t.Context()), audit.FromFS(os.DirFS(filepath.Join(p.dir, "broker", "record")))} {
		signed, err := checkpoint(p, source)
		if err != nil {
			p.t.Fatal(err)
		}
		found, err := refold.Verify(refold.Record{Source: source, Signed: signed, Others: before, Pinned: p.chain, Now: forger.Now()}, nil)
		if err != nil {
			p.t.Fatalf("after %d events: %v\n%s", found.Events, err, p.said)
		}
		newest = signed
	}
	return newest
}

// checkpoint waits for the first one, which a broker publishes a moment after its start.
func checkpoint(p *process, source audit.Source) (audit.Signed, error) {
	deadline, again := time.After(10*time.Second), time.NewTicker(20*time.Millisecond)
	defer again.Stop()
	for {
		text, err := source(audit.PathCheckpoint)
		if err == nil {
			return audit.Open(text, p.chain.Deployment(), p.chain.Current().LogKeys())
		}
		select {
		case <-again.C:
		case <-deadline:
			return audit.Signed{}, err
		}
	}
}
