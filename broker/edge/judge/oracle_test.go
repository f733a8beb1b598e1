package judge

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"pim-ssh/broker/statement"
)

// TestAHookNeedsNoMoreThanSSHKeygen signs its answers as the manual says.
func TestAHookNeedsNoMoreThanSSHKeygen(t *testing.T) {
	file := filepath.Join(t.TempDir(), "hook")
	if out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", file).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	public, err := os.ReadFile(file + ".pub")
	if err != nil {
		t.Fatal(err)
	}
	key, err := statement.ParseKey(strings.TrimSpace(string(public)))
	if err != nil {
		t.Fatal(err)
	}
	s := newService(t, func(s *service, w http.ResponseWriter, asked Evaluation) {
		body := fmt.Sprintf(`{"evaluation":%q,"verdict":"demand","approvals":1,"why":"freeze"}`, asked.Evaluation)
		sign := exec.Command("bash", "-c", `ssh-keygen -Y sign -n hook@pim-ssh -f "$1" | grep -v -- ----- | tr -d '\n'`, "bash", file)
		sign.Stdin = strings.NewReader(body)
		signature, err := sign.Output()
		if err != nil {
			t.Error(err)
		}
		w.Header().Set(HeaderSignature, string(bytes.TrimSpace(signature)))
		fmt.Fprint(w, body)
	})
	hook := s.hook()
	hook.Key = key
	if got, err := NewHooks(rand.Reader).Ask(t.Context(), hook, about(t)); err != nil || got.Refused || got.More != 1 || got.Why != "freeze" {
		t.Errorf("got %+v, %v", got, err)
	}
}
