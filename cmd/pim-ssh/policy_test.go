package main

import (
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"pim-ssh/broker/policy"
	"pim-ssh/broker/policy/policyfile"
)

// TestTemplateIsSoundOnceKeysAreFilledIn: what policy init writes compiles with real keys and with no others.
func TestTemplateIsSoundOnceKeysAreFilledIn(t *testing.T) {
	s := newScene(t, "127.0.0.1:1")
	if _, err := policyfile.Parse("policy.yaml", []byte(policyTemplate)); err == nil {
		t.Error("the template passes as it is: somebody will sign it by accident")
	}
	text := policyTemplate
	for strings.Contains(text, "ssh-ed25519 …") {
		text = strings.Replace(text, "ssh-ed25519 …", string(s.public(newKey(t))), 1)
	}
	if _, err := policyfile.Parse("policy.yaml", []byte(text)); err != nil {
		t.Error(err)
	}
}

// TestShownPolicyOfVersion1 says in the words of version 2 what version 1 meant: no approval, and any key.
func TestShownPolicyOfVersion1(t *testing.T) {
	text, err := os.ReadFile("../../broker/policy/policyfile/testdata/good/lab.yaml")
	if err != nil {
		t.Fatal(err)
	}
	old, err := policyfile.Read("lab", text)
	if err != nil {
		t.Fatal(err)
	}
	deploy := old.Roles["web-deploy"]
	deploy.PlainKey = false
	old.V, old.Roles["web-deploy"] = 1, deploy
	again, err := policyfile.Read("shown", []byte(policyYAML(&old)))
	if err != nil {
		t.Fatal(err)
	}
	if lines := policy.Difference(&old, &again); len(lines) > 0 {
		t.Errorf("it says something else: %v", lines)
	}
}

// TestShownPolicyCompilesToItself: every document of the corpus, written by policy show, reads back the same.
func TestShownPolicyCompilesToItself(t *testing.T) {
	const corpus = "../../broker/policy/policyfile/testdata/good/"
	for _, name := range []string{"every_field", "lab", "smallest"} {
		t.Run(name, func(t *testing.T) {
			text, err := os.ReadFile(corpus + name + ".yaml")
			if err != nil {
				t.Fatal(err)
			}
			want, err := policyfile.Read(name, text)
			if err != nil {
				t.Fatal(err)
			}
			shown := policyYAML(&want)
			got, err := policyfile.Read("shown", []byte(shown))
			if err != nil {
				t.Fatalf("%v\n%s", err, shown)
			}
			if diff := cmp.Diff(want, got, cmpopts.IgnoreUnexported(policy.Document{})); diff != "" {
				t.Error(diff)
			}
		})
	}
}
