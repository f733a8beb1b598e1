package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/boombuler/barcode/qr"
	"github.com/spf13/cobra"

	"pim-ssh/broker/statement"
	"pim-ssh/broker/totp"
	"pim-ssh/cmd/pim-ssh/term"
)

// enrolledJSON is what `totp enrol -o json` prints.
type enrolledJSON struct {
	Person   statement.Person `json:"person"`
	Recovery []string         `json:"recovery"`
}

func totpCommand(d *desk) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "totp",
		Short: "codes of an authenticator app as your second factor",
		Long: "Some roles want a code beside the signature. Brokers check codes, and keep what they are made from sealed to\n" +
			"their own keys; hosts cannot check them. Where that is not enough, a role wants a security key.",
	}
	cmd.AddCommand(totpEnrolCommand(d), totpStatusCommand(d), totpResetCommand(d))
	return family(cmd)
}

func totpEnrolCommand(d *desk) *cobra.Command {
	var old string
	cmd := &cobra.Command{
		Use:   "enrol",
		Short: "show a QR code for your app, and take its first code",
		Long: "Makes a new secret, shows it on the terminal as a QR code and as text, asks for the first code your app\n" +
			"makes of it, and files it, sealed to the brokers. Then prints ten recovery codes: each serves once in place\n" +
			"of a code, and none is ever shown again. Enrolling again replaces the secret, for a code of the old one.",
		Args: none("pim-ssh totp enrol"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := d.contact(cmd.Context())
			if err != nil {
				return err
			}
			return c.enrolFactor(cmd.Context(), plainCode(old))
		},
	}
	cmd.Flags().StringVar(&old, "code", "", "a `CODE` of the secret that this replaces, or a recovery code")
	return cmd
}

func (c *contact) enrolFactor(ctx context.Context, old string) error {
	var brokers []statement.Key
	doc := c.chain.Current()
	for _, name := range slices.Sorted(maps.Keys(doc.Brokers)) {
		brokers = append(brokers, doc.Brokers[name].Identity)
	}
	old, err := c.oldCode(ctx, old)
	if err != nil {
		return err
	}
	seed, err := totp.Generate(c.random, c.person)
	if err != nil {
		return err
	}
	sealed, err := totp.Seal(seed, brokers...)
	if err != nil {
		return err
	}
	if err := c.showSeed(seed); err != nil {
		return err
	}
	first, err := c.firstCode(ctx, seed)
	if err != nil {
		return err
	}
	head, err := c.head(statement.KindFactor, freshFor)
	if err != nil {
		return err
	}
	if _, _, err := c.file(ctx, statement.Factor{Head: head, Action: statement.EnrolFactor, Sealed: sealed, First: first, Code: old}); err != nil {
		return err
	}
	c.term.Say("enrolled; keep these recovery codes where the phone is not: each serves once, and they are never shown again")
	if c.json() {
		return c.term.JSON(enrolledJSON{Person: c.person, Recovery: seed.Recovery})
	}
	for _, code := range seed.Recovery {
		c.term.Result("%s", code)
	}
	return nil
}

// showSeed shows a seed on the terminal and nowhere else.
func (c *contact) showSeed(seed totp.Seed) error {
	uri, err := seed.URI("pim-ssh", c.person)
	if err != nil {
		return err
	}
	code, err := qr.Encode(uri, qr.M, qr.Auto)
	if err != nil {
		return fmt.Errorf("drawing the QR code: %w", err)
	}
	side := code.Bounds().Dx()
	dark := make([][]bool, side)
	for row := range dark {
		dark[row] = make([]bool, side)
		for column := range dark[row] {
			red, _, _, _ := code.At(column, row).RGBA()
			dark[row][column] = red == 0
		}
	}
	err = c.term.Picture(dark, "scan this with your authenticator app, or type: "+seed.Text(), uri)
	if errors.Is(err, term.ErrNoInput) {
		return usage("pim-ssh totp enrol, on a terminal", "a secret is shown on a terminal and nowhere else, and %v", err)
	}
	return err
}

// tries is how often a first code may be typed before it is given up: the phone's clock or ours is wrong then.
const tries = 3

// firstCode asks for the first code that the app makes, and looks at it here before anybody else does.
func (c *contact) firstCode(ctx context.Context, seed totp.Seed) (string, error) {
	for range tries {
		answer, err := c.term.Ask(ctx, "the code that it shows now")
		if err != nil {
			return "", err
		}
		typed := plainCode(answer)
		if _, right := seed.Check(typed, c.clock()); right {
			return typed, nil
		}
		c.term.Warn("that is not the code of this moment: it is %s here", c.clock())
	}
	return "", invalid("look at the clock of the phone and of this machine, then: pim-ssh totp enrol", "no code was right: nothing was enrolled")
}

func totpStatusCommand(d *desk) *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "show whether you have enrolled codes, and whether they are locked",
		Args:  none("pim-ssh totp status"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := d.contact(cmd.Context())
			if err != nil {
				return err
			}
			return c.factorStatus(cmd.Context())
		},
	}
}

func totpResetCommand(d *desk) *cobra.Command {
	var why string
	cmd := &cobra.Command{
		Use:   "reset PERSON",
		Short: "take away a person's secret, so that they can enrol again (operators)",
		Long: "For somebody who lost phone and recovery codes, or whose codes are locked. Make sure that it is them: until\n" +
			"they enrol again, they can do nothing that wants a code.",
		Args: one("PERSON", "pim-ssh totp reset PERSON --why \"…\""),
		RunE: func(cmd *cobra.Command, args []string) error {
			if why == "" {
				return usage(fmt.Sprintf("pim-ssh totp reset %s --why \"…\"", args[0]), "say why: it stays in the log")
			}
			c, err := d.contact(cmd.Context())
			if err != nil {
				return err
			}
			return c.resetFactor(cmd.Context(), statement.Person(args[0]), why)
		},
	}
	cmd.Flags().StringVar(&why, "why", "", "a reason, in a `TEXT` that stays in the log")
	return cmd
}

func (c *contact) resetFactor(ctx context.Context, of statement.Person, why string) error {
	doc := c.chain.Current()
	if _, known := doc.People[of]; !known {
		return missing("pim-ssh policy show", "the policy knows no %s%s", of, didYouMean(string(of), lines(slices.Sorted(maps.Keys(doc.People)))))
	}
	if !doc.Operator(c.person) {
		return denied("ask one of: "+joined(doc.Operators), "you are no operator")
	}
	head, err := c.head(statement.KindFactor, freshFor)
	if err != nil {
		return err
	}
	answer, _, err := c.file(ctx, statement.Factor{Head: head, Action: statement.ResetFactor, Of: of, Reason: why})
	if err != nil {
		return err
	}
	if c.json() {
		return c.term.JSON(filedJSON{Index: answer.Index})
	}
	c.term.Say("%s has no second factor now, and can enrol a new one: pim-ssh totp enrol", of)
	return nil
}

// filedJSON is what commands print with -o json that file a statement and make nothing that has an id.
type filedJSON struct {
	Index uint64 `json:"index"`
}

// oldCode is a code of the secret that a new one replaces, when there is one.
func (c *contact) oldCode(ctx context.Context, typed string) (string, error) {
	factor, err := c.factor(ctx)
	if err != nil || typed != "" || !factor.Enrolled {
		return typed, err
	}
	answer, err := c.term.Ask(ctx, "you have enrolled before: a code of that secret, or a recovery code")
	if errors.Is(err, term.ErrNoInput) {
		return "", usage("pim-ssh totp enrol --code CODE, on a terminal", "you have enrolled before, and %v", err)
	}
	return plainCode(answer), err
}
