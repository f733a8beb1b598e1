package edge

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"

	"pim-ssh/broker/api"
	"pim-ssh/broker/policy"
	"pim-ssh/broker/statement"
	"pim-ssh/broker/statement/signtest"
	"pim-ssh/packaging/lab/forger"
)

// posted files a statement by a connection with a TLS key and headers of the caller's choosing.
func (j *judging) posted(key ed25519.PrivateKey, headers map[string]string, p statement.Proof) (int, string) {
	j.t.Helper()
	var own *tls.Certificate
	if key != nil {
		made, err := api.SelfSigned(rand.Reader, key)
		j.must(err)
		own = &made
	}
	transport := &http.Transport{TLSClientConfig: api.ClientTLS(api.ProtocolHTTP, []statement.Key{j.world.Chain.Current().Brokers["b1"].Identity}, own)}
	defer transport.CloseIdleConnections()
	body, err := json.Marshal(p)
	j.must(err)
	request, err := http.NewRequestWithContext(j.t.Context(), http.MethodPost, "https://"+j.address+"/v1/statements", bytes.NewReader(body))
	j.must(err)
	for name, value := range headers {
		request.Header.Set(name, value)
	}
	answer, err := (&http.Client{Transport: transport}).Do(request)
	j.must(err)
	defer answer.Body.Close()
	said, err := io.ReadAll(answer.Body)
	j.must(err)
	return answer.StatusCode, string(said)
}

// TestThreatSourceIsNotWhatACallerSays claims to come from the role's network, as everybody who can connect.
func TestThreatSourceIsNotWhatACallerSays(t *testing.T) {
	j := newJudging(t, func(r *policy.Role) { r.Networks = []string{"192.0.2.0/24"} })
	stranger, _ := forger.PrivateKey(t)
	host := j.hosts["web1"]
	claims := map[string]string{api.HeaderPassed: "1", api.HeaderSource: "192.0.2.7"}
	for name, try := range map[string]struct {
		key     ed25519.PrivateKey
		headers map[string]string
		taken   bool
		from    string
	}{
		"nothing claimed":                    {nil, nil, false, "127.0.0.1"},
		"a person who claims it":             {nil, map[string]string{api.HeaderSource: "192.0.2.7"}, false, "127.0.0.1"},
		"a person who claims to be a broker": {nil, claims, false, "127.0.0.1"},
		"a person, as proxies say it":        {nil, map[string]string{"X-Forwarded-For": "192.0.2.7", "Forwarded": "for=192.0.2.7", "X-Real-IP": "192.0.2.7"}, false, "127.0.0.1"},
		"a stranger's key":                   {stranger, claims, false, "127.0.0.1"},
		"a host's key":                       {host, claims, false, "127.0.0.1"},
		"a broker, of itself":                {j.world.Identity, map[string]string{api.HeaderSource: "192.0.2.7"}, false, "127.0.0.1"},
		"a broker, of who is elsewhere":      {j.world.Identity, map[string]string{api.HeaderPassed: "1", api.HeaderSource: "198.51.100.7"}, false, "198.51.100.7"},
		"a broker, of nobody":                {j.world.Identity, map[string]string{api.HeaderPassed: "1"}, false, ""},
		"a broker, in other words":           {j.world.Identity, map[string]string{api.HeaderPassed: "1", api.HeaderSource: "192.0.2.7:80"}, false, ""},
		"a broker, of a scoped address":      {j.world.Identity, map[string]string{api.HeaderPassed: "1", api.HeaderSource: "fe80::1%eth0"}, false, ""},
		"a broker that passes it on":         {j.world.Identity, claims, true, ""},
		"a broker, of a mapped address":      {j.world.Identity, map[string]string{api.HeaderPassed: "1", api.HeaderSource: "::ffff:192.0.2.9"}, true, ""},
	} {
		t.Run(name, func(t *testing.T) {
			before := j.index()
			status, said := j.posted(try.key, try.headers, j.with("alice", ""))
			if (status == http.StatusOK) != try.taken {
				t.Fatalf("%d %s", status, said)
			}
			if try.taken {
				return
			}
			if refused := j.refusals(before); len(refused) != 1 || refused[0].Judged.Source != try.from || !strings.Contains(refused[0].Why, "192.0.2.0/24") {
				t.Errorf("the record says %+v", refused)
			}
		})
	}
}

// TestWhatIsPassedOnSaysWhereItCameFrom hands a request on as a follower does.
func TestWhatIsPassedOnSaysWhereItCameFrom(t *testing.T) {
	private, signer := forger.PrivateKey(t)
	own, err := api.SelfSigned(rand.Reader, private)
	if err != nil {
		t.Fatal(err)
	}
	heard := make(chan http.Header, 1)
	leader := httptest.NewUnstartedServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { heard <- r.Header }))
	leader.TLS = api.ServerTLS(own, func() []statement.Key { return nil })
	leader.StartTLS()
	defer leader.Close()
	for from, want := range map[string]string{"192.0.2.7:4711": "192.0.2.7", "[2001:db8::1]:4711": "2001:db8::1", "[::ffff:192.0.2.7]:1": "192.0.2.7", "[fe80::1%eth0]:1": "fe80::1", "@": ""} {
		r := httptest.NewRequest(http.MethodPost, "/v1/statements", nil)
		r.RemoteAddr = from
		r.Header.Add(api.HeaderSource, "10.0.0.1")
		r.Header.Add(strings.ToLower(api.HeaderSource), "10.0.0.2")
		calls := api.NewPeers(nil)
		_, err := calls.Pass(t.Context(), policy.Broker{Address: leader.Listener.Addr().String(), Identity: signtest.Public(signer)}, r, nil)
		calls.Close()
		if err != nil {
			t.Fatal(err)
		}
		if said := (<-heard).Values(api.HeaderSource); strings.Join(said, "|") != want {
			t.Errorf("from %s: it says %q", from, said)
		}
	}
}
