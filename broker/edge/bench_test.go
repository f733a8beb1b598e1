package edge

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"pim-ssh/broker"
	"pim-ssh/broker/api"
	"pim-ssh/broker/statement"
	"pim-ssh/packaging/lab/forger"
)

// BenchmarkARevocationReachesEveryWatcher has many hosts' streams wait for one grant to end: from the revocation being
// filed to each of them having it. All clients run in this process too, TLS included.
func BenchmarkARevocationReachesEveryWatcher(b *testing.B) {
	const hosts, each = 125, watchersPerName
	s := newStage(b, nil, nil)
	names := make([]statement.HostName, hosts)
	var streams []*api.Stream
	for i := range hosts {
		names[i] = statement.HostName(fmt.Sprintf("db-%03d", i))
		s.enrol(names[i], "db")
		for range each {
			stream, err := s.host(names[i]).Watch(b.Context(), nil)
			s.must(err)
			streams = append(streams, stream)
		}
	}
	var worst []time.Duration
	for b.Loop() {
		ask := s.world.Ask("alice", "db-admin", names[0], 600, forger.Key(b), func(r *statement.Request) { r.Hosts = names })
		s.submit(ask)
		grant := *s.submit(s.world.Approve("bob", ask, nil)).Grant
		everywhere(b, streams, func(f api.Frame) bool { return f.Dossier != nil && f.Dossier.Stem() == grant.Stem() })
		end := s.end("dave", grant, statement.Revoke)
		start := time.Now()
		s.submit(end)
		everywhere(b, streams, func(f api.Frame) bool { return f.Ended != nil && broker.StemOf(f.Ended.Request) == grant.Stem() })
		worst = append(worst, time.Since(start))
	}
	slices.Sort(worst)
	b.ReportMetric(float64(len(streams)), "watchers")
	b.ReportMetric(float64(worst[len(worst)/2].Milliseconds()), "ms-median")
	b.ReportMetric(float64(worst[len(worst)-1].Milliseconds()), "ms-worst")
}

// everywhere waits until every stream has said it.
func everywhere(b *testing.B, streams []*api.Stream, it func(api.Frame) bool) {
	b.Helper()
	var all sync.WaitGroup
	for _, stream := range streams {
		all.Go(func() {
			for {
				frame, err := stream.Next()
				if err != nil {
					b.Error(err)
					return
				}
				if it(frame) {
					return
				}
			}
		})
	}
	all.Wait()
}
