package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/crypto/ssh"

	"pim-ssh/broker/policy"
	"pim-ssh/broker/statement"
	"pim-ssh/cmd/pim-ssh/term"
)

// partialSuffix marks a chain file whose last revision still lacks signatures.
const partialSuffix = ".partial"

// signWish is what was typed after policy sign.
type signWish struct {
	file, out, chain, person, key string
	first, yes                    bool
}

// signedJSON is what policy sign prints with -o json.
type signedJSON struct {
	File       string         `json:"file"`
	Revision   uint64         `json:"revision"`
	Hash       statement.Hash `json:"hash"`
	Signatures int            `json:"signatures"`
	Needed     int            `json:"needed"`
	Complete   bool           `json:"complete"`
}

func policySignCommand(d *desk) *cobra.Command {
	w := signWish{}
	cmd := &cobra.Command{
		Use:   "sign FILE",
		Short: "compile a policy.yaml, show what changes in words, and sign the next revision",
		Long: "Reads FILE strictly, shows what changes, signs the compiled policy with your steward's key and writes the chain\n" +
			"file that `policy apply` and `join` read. While more stewards must sign, the file ends in .partial: the next one\n" +
			"runs `pim-ssh policy sign FILE.partial`, sees the same change and is asked.",
		Example: "  pim-ssh policy sign policy.yaml --first -o chain      # a new deployment\n" +
			"  pim-ssh policy sign policy.yaml -o chain && pim-ssh policy apply chain",
		Args: one("FILE", "pim-ssh policy init policy.yaml"),
		RunE: func(cmd *cobra.Command, args []string) error {
			w.file = args[0]
			return d.policySign(cmd.Context(), w)
		},
	}
	flags := cmd.Flags()
	flags.BoolVar(&w.first, "first", false, "begin a new deployment with this as its first revision")
	flags.StringVar(&w.chain, "chain", "", "the `CHAINFILE` to follow (default: the joined deployment's)")
	flags.StringVar(&w.person, "person", "", "the `PERSON` who signs, a steward (default: who joined, else whose key the ssh-agent holds)")
	flags.StringVar(&w.key, "key", "", "the `KEY` to sign with: a file, or SHA256:… in the ssh-agent")
	flags.BoolVarP(&w.yes, "yes", "y", false, "do not ask before adding to another steward's revision")
	flags.VarP(outputFlag{format: &d.format, file: &w.out}, "output", "o", "the chain file to write (default: policy.chain); json or text: how to print the result")
	return cmd
}

func (d *desk) policySign(ctx context.Context, w signWish) error {
	data, err := os.ReadFile(w.file)
	if err != nil {
		return invalid("pim-ssh policy init policy.yaml", "%v", err)
	}
	if bytes.HasPrefix(data, []byte(`{"payload"`)) {
		return d.cosign(ctx, w, data)
	}
	chain, err := d.signedSoFar(w)
	if err != nil {
		return err
	}
	file, err := readPolicyFile(w.file)
	if err != nil {
		return err
	}
	payload, err := policy.Draft(chain.Next(file.Document, d.clock().Add(file.Lifetime)))
	if err != nil {
		return err
	}
	doc, err := policy.Parse(payload)
	if err != nil {
		return err
	}
	return d.addSignature(ctx, w, revision{before: chain, doc: doc, proof: statement.Proof{Payload: payload}})
}

// signedSoFar is the chain that the new revision follows.
func (d *desk) signedSoFar(w signWish) (policy.Chain, error) {
	switch {
	case w.first && w.chain != "":
		return policy.Chain{}, usage("pim-ssh policy sign FILE --first", "--first and --chain exclude each other")
	case w.first:
		return policy.Chain{}, nil
	case w.chain == "":
		p, err := d.pinned()
		if errors.Is(err, errNotJoined) {
			err = invalid("pim-ssh policy sign FILE --first, for a new deployment; else "+joinHint, "%v", err)
		}
		return p.chain, err
	}
	data, err := os.ReadFile(w.chain)
	if err != nil {
		return policy.Chain{}, invalid("pim-ssh policy sign FILE --chain CHAINFILE", "%v", err)
	}
	chain, err := readChain(data)
	if err != nil {
		return policy.Chain{}, denied("ask a steward for the chain file", "the chain in %s does not verify: %v", w.chain, err)
	}
	return chain, nil
}

// revision is one about to be signed: what it follows, what it says, and the signatures it has.
type revision struct {
	before policy.Chain // zero: this is the first
	doc    *policy.Document
	proof  statement.Proof
}

// signedBy is the document whose stewards must sign: the one before, or the first one's own.
func (r revision) signedBy() *policy.Document {
	if r.doc.Revision == 1 {
		return r.doc
	}
	return r.before.Current()
}

// change says in words what the revision changes.
func (r revision) change() term.Card {
	lines := policy.Difference(r.before.Current(), r.doc)
	if len(lines) == 0 {
		lines = []string{"nothing but number and expiry"}
	}
	return term.Card{Title: "policy revision " + itoa(r.doc.Revision), Fields: []term.Field{
		{Label: "changes", Lines: lines}, {Label: "hash", Lines: []string{r.proof.Hash().String()}},
	}}
}

// cosign adds this steward's signature to a revision another steward began. It is another's text, so it asks.
func (d *desk) cosign(ctx context.Context, w signWish, data []byte) error {
	proofs, err := parseChainFile(data)
	if err != nil {
		return invalid("ask the steward for the file again", "%s is no chain file: %v", w.file, err)
	}
	r := revision{proof: proofs[len(proofs)-1]}
	if len(proofs) > 1 {
		if r.before, err = walkAll(proofs[:len(proofs)-1]); err != nil {
			return denied("do not sign; show the file to the other stewards", "%s does not verify: %v", w.file, err)
		}
	}
	if r.doc, err = policy.Parse(r.proof.Payload); err != nil {
		return denied("do not sign; show the file to the other stewards", "%s: %v", w.file, err)
	}
	if err := r.begunByStewards(); err != nil {
		return denied("do not sign; show the file to the other stewards", "%s: %v", w.file, err)
	}
	if p, err := d.pinned(); err == nil && !p.sharesRoot(r) {
		return denied("do not sign; show the file to the other stewards", "%s does not follow the deployment you joined", w.file)
	}
	if !w.yes {
		agreed, err := d.term.Confirm(ctx, r.change(), "add your signature to this revision?")
		if err != nil {
			return err
		}
		if !agreed {
			return errNotSigned
		}
	}
	if w.out == "" {
		w.out = strings.TrimSuffix(w.file, partialSuffix)
	}
	return d.addSignature(ctx, w, r)
}

// begunByStewards refuses a revision that carries any signature but stewards'.
func (r revision) begunByStewards() error {
	signers, err := statement.OpenPayload(statement.KindPolicy, r.proof)
	if err != nil {
		return err
	}
	doc := r.signedBy()
	for _, signer := range signers {
		if person, held := doc.KeyOwner(signer.Key); !held || !doc.Steward(person) {
			return fmt.Errorf("key %s, which signed it, is no steward's", signer.Key.Fingerprint())
		}
	}
	return nil
}

var errNotSigned = errors.New("nothing was signed")

// sharesRoot reports whether the revision goes on from exactly what is pinned; the very first of all always may.
func (p pin) sharesRoot(r revision) bool {
	return r.before.Deployment() == p.chain.Deployment() && p.chain.Place(r.before.Ref()) != policy.Foreign
}

// addSignature signs, and writes the chain file: whole, or partial while stewards are missing.
func (d *desk) addSignature(ctx context.Context, w signWish, r revision) error {
	signer, err := d.steward(ctx, w, r)
	if err != nil {
		return err
	}
	one, err := statement.SignPayload(statement.KindPolicy, r.proof.Payload, signer)
	if err != nil {
		return signing(err)
	}
	r.proof = r.proof.Add(one.Signatures...)
	complete, err := r.complete()
	if err != nil {
		return err
	}
	path := w.out
	if path == "" {
		path = "policy.chain"
	}
	if !complete {
		path += partialSuffix
	}
	data, err := formatChainFile(append(r.before.Proofs(), r.proof))
	if err != nil {
		return err
	}
	if err := writeFile(path, data, 0o644); err != nil {
		return err
	}
	return d.signed(r, path, complete)
}

// complete reports whether enough stewards have signed; anything else that is wrong is an error.
func (r revision) complete() (bool, error) {
	var err error
	if r.doc.Revision == 1 {
		_, err = policy.Genesis(r.proof)
	} else {
		_, err = r.before.Advance(r.proof)
	}
	if errors.Is(err, policy.ErrUnsigned) {
		return false, nil
	}
	return err == nil, err
}

func (d *desk) signed(r revision, path string, complete bool) error {
	needed := r.signedBy().Stewards.Threshold
	if d.json() {
		return d.term.JSON(signedJSON{path, r.doc.Revision, r.proof.Hash(), len(r.proof.Signatures), needed, complete})
	}
	d.term.TalkCard(r.change())
	d.term.Result("%s", path)
	switch {
	case !complete:
		d.term.Say("%d of %d stewards have signed; the next one runs: pim-ssh policy sign %s", len(r.proof.Signatures), needed, path)
	case r.doc.Revision == 1:
		d.term.Say("the deployment is %s; start it with: pim-brokerd bootstrap %s", r.proof.Hash(), path)
	default:
		d.term.Say("publish it with: pim-ssh policy apply %s", path)
	}
	return nil
}

// steward finds the key that signs: of the person named, else of who joined, else of the only steward at hand, and
// never of one who signed already.
func (d *desk) steward(ctx context.Context, w signWish, r revision) (ssh.Signer, error) {
	doc := r.signedBy()
	person, key := statement.Person(w.person), w.key
	if person == "" && key == "" {
		if s, err := d.readSettings(); err == nil {
			person, key = s.Person, s.Key
		}
	}
	if person != "" && !doc.Steward(person) {
		return nil, denied("ask one of: "+joined(doc.Stewards.People), "%s is no steward", person)
	}
	accepted := []statement.Key{}
	for _, steward := range doc.Stewards.People {
		switch {
		case person != "" && steward != person:
		case r.hasSigned(doc, steward) && steward == person:
			return nil, denied("the next steward signs", "%s has signed this revision already", steward)
		case !r.hasSigned(doc, steward):
			accepted = append(accepted, doc.People[steward].Keys...)
		}
	}
	return d.chooseKey(ctx, key, accepted)
}

func (r revision) hasSigned(doc *policy.Document, steward statement.Person) bool {
	if len(r.proof.Signatures) == 0 {
		return false
	}
	signers, err := statement.OpenPayload(statement.KindPolicy, r.proof)
	return err == nil && slices.ContainsFunc(signers, func(s statement.Signer) bool { return doc.HoldsKey(steward, s.Key) })
}
