package refold

import "testing"

// BenchmarkVerify audits the recorded log: every kind of event, a signature in most.
func BenchmarkVerify(b *testing.B) {
	o := &owner{t: b, leaves: recorded(b)}
	record := o.record()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Verify(record, nil); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(len(o.leaves)*b.N)/b.Elapsed().Seconds(), "events/s")
}
