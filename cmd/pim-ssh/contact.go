package main

import (
	"context"
	"errors"

	"golang.org/x/crypto/ssh"

	"pim-ssh/broker"
	"pim-ssh/broker/api"
	"pim-ssh/broker/statement"
)

// contact is a person in touch with the brokers of the pinned deployment. Its chain is the newest that could be
// verified; every statement names that revision.
type contact struct {
	*desk
	pin
	posts  *api.Client // asks nothing that needs a signature
	reads  *api.Client // nil until something is read as the person
	signer ssh.Signer  // nil until something is signed
}

// contact reaches a broker and walks the policy forward on what it shows.
func (d *desk) contact(ctx context.Context) (*contact, error) {
	p, err := d.pinned()
	if err != nil {
		return nil, err
	}
	return d.contactAs(ctx, p)
}

func (d *desk) contactAs(ctx context.Context, p pin) (*contact, error) {
	c := &contact{desk: d, pin: p}
	if err := c.dial(); err != nil {
		return nil, err
	}
	shown, err := c.posts.Policies(ctx, p.chain.Ref().Revision-1) // the one we hold too: another in its place is a fork
	if err != nil {
		return nil, err
	}
	c.pin, err = d.forward(p, shown)
	if err != nil {
		return nil, err
	}
	if c.chain.Ref() != p.chain.Ref() {
		c.posts.Close()
		err = c.dial()
	}
	if expires := c.chain.Current().Expires; expires <= c.clock() {
		c.term.Warn("the policy expired at %s: nothing starts before the stewards sign a new revision", expires)
	}
	return c, err
}

func (c *contact) dial() error {
	client, err := api.NewClient(api.Config{Policy: c.chain.Current(), Address: c.env("PIM_SSH_BROKER")})
	c.posts = client
	return err
}

// keyOfPerson returns the key that speaks for the person, found once.
func (c *contact) keyOfPerson(ctx context.Context) (ssh.Signer, error) {
	if c.signer != nil {
		return c.signer, nil
	}
	entry, known := c.chain.Current().People[c.person]
	if !known {
		return nil, denied("ask a steward, or join again", "the policy no longer knows %s", c.person)
	}
	signer, err := c.chooseKey(ctx, c.pin.key, entry.Keys)
	if err != nil {
		return nil, err
	}
	c.signer = signer
	return signer, nil
}

// as returns a client that reads as the person.
func (c *contact) as(ctx context.Context) (*api.Client, error) {
	if c.reads != nil {
		return c.reads, nil
	}
	reader, err := c.reader(ctx)
	if err != nil {
		return nil, err
	}
	c.reads = c.posts.As(reader)
	return c.reads, nil
}

// hand says how the person signs one statement: with which key, and what the signature must show.
type hand struct {
	key   string // as --key says it; "" any that shows the touch
	touch touch
}

// sign makes the statement's proof with the person's key. What was typed and fits no statement is told before a key is
// looked for.
func (c *contact) sign(ctx context.Context, body statement.Body, by hand) (statement.Proof, error) {
	if _, err := statement.Encode(body); err != nil {
		return statement.Proof{}, usage("the same command, with that changed", "%v", err)
	}
	signer, err := c.pen(ctx, by)
	if err != nil {
		return statement.Proof{}, err
	}
	var proof statement.Proof
	if file, isFile := signer.(*keyFile); isFile {
		proof, err = file.signStatement(ctx, c.desk, body)
	} else {
		proof, err = statement.Sign(body, signer)
	}
	if err != nil {
		return statement.Proof{}, signing(err)
	}
	return proof, by.touch.shows(proof)
}

// signing is the error to show when no signature came: what this program said itself as it said it.
func signing(err error) error {
	var told *broker.Error
	var typed *usageError
	switch {
	case errors.As(err, &told):
		return told
	case errors.As(err, &typed):
		return typed
	case errors.Is(err, errInterrupted):
		return err
	}
	return invalid("", "%v", err)
}

// file signs a statement with any key of the person's and files it.
func (c *contact) file(ctx context.Context, body statement.Body) (api.Answer, statement.Proof, error) {
	return c.fileBy(ctx, body, hand{})
}

// fileBy signs a statement and files it. An answer that got lost is asked for again once: filing is idempotent.
func (c *contact) fileBy(ctx context.Context, body statement.Body, by hand) (api.Answer, statement.Proof, error) {
	proof, err := c.sign(ctx, body, by)
	if err != nil {
		return api.Answer{}, statement.Proof{}, err
	}
	answer, err := c.posts.Submit(ctx, proof)
	if broker.KindOf(err) == broker.Unavailable && ctx.Err() == nil {
		answer, err = c.posts.Submit(ctx, proof)
	}
	return answer, proof, err
}

// head is the head of a statement of the person under the newest revision.
func (c *contact) head(kind statement.Kind, life statement.Seconds) (statement.Head, error) {
	return c.desk.head(c.pin, kind, life)
}
