package edge

import (
	"fmt"
	"runtime"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"pim-ssh/broker/api"
	"pim-ssh/broker/statement"
	"pim-ssh/packaging/lab/forger"
)

// returning has so many hosts, each with grants of its own among those of all others, lose their streams and their memory and
// come back at once. It returns when the last of them had its first beat, and what that took of memory, both sides together.
func returning(t testing.TB, hosts int) (took time.Duration, mb uint64) {
	t.Helper()
	s := newStage(t, nil, func(_ *Server, front *Front) { front.places.each = 2 * hosts }) // as if each had an address of its own
	s.revise(hire(s, 500))                                                                 // a policy of some size, for everybody
	names := make([]statement.HostName, hosts)
	for i := range names {
		names[i] = statement.HostName(fmt.Sprintf("w%05d", i))
		s.enrol(names[i], "web")
	}
	for i := range min(hosts, 180) {
		some := names[i*hosts/180 : min(hosts, i*hosts/180+20)]
		if len(some) > 0 {
			s.submit(s.world.Ask("alice", "web-deploy", some[0], 600, forger.Key(t), func(r *statement.Request) { r.Hosts = some }))
		}
	}
	s.must(s.record.Publish())
	var before, at runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	start := time.Now()
	var fresh, all sync.WaitGroup
	done := make(chan struct{})
	for _, name := range names {
		client := s.host(name)
		fresh.Add(1)
		all.Go(func() {
			stream, err := firstBeat(t, client)
			for again := 0; err != nil && again < 30; again++ { // as a host does
				stream, err = firstBeat(t, client)
			}
			fresh.Done()
			if err != nil {
				t.Errorf("%s: %v", name, err)
				return
			}
			<-done
			stream.Close()
		})
	}
	fresh.Wait()
	took = time.Since(start)
	runtime.ReadMemStats(&at)
	close(done)
	all.Wait()
	return took, (at.Sys - min(before.Sys, at.Sys)) >> 20
}

func firstBeat(t testing.TB, client *api.Client) (*api.Stream, error) {
	stream, err := client.Watch(t.Context(), nil)
	for err == nil {
		frame, failed := stream.Next()
		if failed == nil && frame.Beat != 0 {
			return stream, nil
		}
		err = failed
	}
	if stream != nil {
		stream.Close()
	}
	return nil, err
}

// TestAllHostsComeBackAtOnce wants everybody fresh soon.
func TestAllHostsComeBackAtOnce(t *testing.T) {
	hosts := 1000
	if testing.Short() {
		hosts = 100
	}
	took, mb := returning(t, hosts)
	t.Logf("%d hosts came back at once: all fresh after %s, %d MB for both sides", hosts, took.Round(time.Millisecond), mb)
	if took > 30*time.Second {
		t.Errorf("it took %s", took)
	}
}

// BenchmarkTenThousandHostsComeBackAtOnce takes its time to enrol them. Both sides of every connection are files of this process: where
// it may have 20 000, there are 9 500 hosts.
func BenchmarkTenThousandHostsComeBackAtOnce(b *testing.B) {
	var files unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &files); err != nil {
		b.Fatal(err)
	}
	hosts := min(10_000, int(min(files.Max, 1<<20)-1000)/2)
	for range b.N {
		took, mb := returning(b, hosts)
		b.ReportMetric(float64(hosts), "hosts")
		b.ReportMetric(took.Seconds(), "s-until-all-fresh")
		b.ReportMetric(float64(mb), "MB-both-sides")
	}
}
