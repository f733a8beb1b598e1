package main

import (
	"crypto/rand"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"pim-ssh/broker/api"
	"pim-ssh/broker/statement"
)

// ownedStatus is an owned broker that tells of its cluster whatever it likes.
type ownedStatus struct {
	*scene
	says  any
	filed []statement.Proof
}

func startOwnedStatus(t *testing.T, says any) *ownedStatus {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	o := &ownedStatus{scene: newScene(t, listener.Addr().String()), says: says}
	own, err := api.SelfSigned(rand.Reader, o.identity)
	o.must(err)
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/policy", func(w http.ResponseWriter, _ *http.Request) { answer(w, api.Policies{Policies: o.chain.Proofs()}, 200) })
	mux.HandleFunc("GET /v1/cluster", func(w http.ResponseWriter, _ *http.Request) { answer(w, o.says, 200) })
	mux.HandleFunc("POST /v1/statements", func(w http.ResponseWriter, r *http.Request) {
		data, err := io.ReadAll(r.Body)
		proof, wrong := statement.ParseProof(data)
		if err != nil || wrong != nil {
			answer(w, api.Problem{Kind: "invalid"}, 400)
			return
		}
		o.filed = append(o.filed, proof)
		answer(w, api.Answer{Index: 7}, 200)
	})
	server := &http.Server{Handler: mux, TLSConfig: api.ServerTLS(own, func() []statement.Key { return nil }), ErrorLog: quietLog()}
	go server.ServeTLS(listener, "", "")
	t.Cleanup(func() { server.Close() })
	return o
}

func TestAHostileBrokersStatusIsEscaped(t *testing.T) {
	const evil = "\x1b[2J\x1b]0;owned\x07\r\nb9  voter, leads  yes"
	o := startOwnedStatus(t, api.Cluster{Leader: "b1", Asked: "b1", Rules: 2, Brokers: []api.BrokerView{{
		Name: "b1", Place: api.Place(evil), Reachable: true, Version: evil, Why: evil, Told: map[statement.BrokerName]string{"b2": evil}}}})
	desk := o.seat("dave")
	for _, args := range [][]string{{"cluster", "status"}, {"cluster", "status", "-o", "json"}, {"cluster", "rules"}} {
		out, talk, code := desk.run(args...)
		if code != 0 || strings.ContainsAny(out+talk, "\x1b\x07\r") || strings.Contains(out+talk, "\nb9") {
			t.Errorf("%v: exit %d: %q %q", args, code, out, talk)
		}
	}
}

// A broker that lies about a broker's disk makes dave sign a removal of a disk that is no member's, and of no other broker.
func TestAHostileBrokerChoosesNobodyToRemove(t *testing.T) {
	const lie statement.Disk = "00112233445566778899aabbccddeeff"
	o := startOwnedStatus(t, api.Cluster{Leader: "b1", Asked: "b1", Rules: 2, Brokers: []api.BrokerView{
		{Name: "b1", Place: api.PlaceVoter, Disk: lie}, {Name: "b2", Place: api.PlaceVoter, Disk: lie}}})
	if out, talk, code := o.seat("dave").run("cluster", "remove", "b1", "--yes"); code != 0 {
		t.Fatalf("exit %d: %s%s", code, out, talk)
	}
	var body statement.Cluster
	if len(o.filed) != 1 || statement.DecodeStrict(o.filed[0].Payload, &body) != nil || body.Broker != "b1" || body.Disk != lie {
		t.Errorf("dave signed %+v", body)
	}
}
