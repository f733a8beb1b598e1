package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/spf13/cobra"

	"pim-ssh/broker"
	"pim-ssh/broker/api"
	"pim-ssh/broker/policy"
	"pim-ssh/broker/statement"
)

func clusterStatusCommand(d *desk) *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "print who leads, who votes, who answers, and how far behind",
		Long: "For operators and auditors. With no broker able to answer for the cluster it still tells which of them can be reached,\n" +
			"and exits 69.",
		Args: none("pim-ssh cluster status"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			shown, err := d.clusterShown(cmd.Context())
			if broker.KindOf(err) == broker.Unavailable {
				return d.clusterDown(cmd.Context(), err)
			}
			if err != nil {
				return err
			}
			return d.showCluster(shown)
		},
	}
}

// clusterShown is the cluster as the broker that answers sees it.
func (d *desk) clusterShown(ctx context.Context) (api.Cluster, error) {
	c, err := d.contact(ctx)
	if err != nil {
		return api.Cluster{}, err
	}
	client, err := c.as(ctx)
	if err != nil {
		return api.Cluster{}, err
	}
	shown, err := client.Cluster(ctx)
	if broker.KindOf(err) == broker.Missing {
		err = missing("upgrade pim-brokerd on every broker", "the broker that answers runs an older pim-brokerd, which cannot tell")
	}
	return shown, err
}

func (d *desk) showCluster(shown api.Cluster) error {
	if d.json() {
		return d.term.JSON(shown)
	}
	var rows [][]string
	for _, b := range shown.Brokers {
		place := string(b.Place)
		if b.Name == shown.Leader {
			place += ", leads"
		}
		row := []string{string(b.Name), place, "no", "-", "-", "-", "-"}
		if b.Reachable {
			row = []string{string(b.Name), place, "yes", fmt.Sprint(b.Behind), fmt.Sprint(b.Rules), b.Version, fmt.Sprintf("%+d s", b.Ahead)}
		}
		rows = append(rows, row)
	}
	d.term.Table([]string{"BROKER", "STANDING", "ANSWERS", "BEHIND", "RULES", "VERSION", "CLOCK"}, rows)
	for _, b := range shown.Brokers {
		for _, note := range notes(b) {
			d.term.Say("%s: %s", b.Name, note)
		}
	}
	if shown.Leader == "" {
		d.term.Say("no broker leads")
	}
	d.term.Say("%d events under rules %d, as %s sees it", shown.Events, shown.Rules, shown.Asked)
	if shown.Epoch > 0 {
		d.term.Say("epoch %d: the brokers were restored from a backup", shown.Epoch)
	}
	return nil
}

// notes says what an operator may want to do something about. Which disk to add is not taken from here: the machine itself
// prints it.
func notes(b api.BrokerView) []string {
	var all []string
	switch b.Place {
	case api.PlaceRemoved:
		all = append(all, "to bring it back, on it: pim-brokerd quarantine, then pim-brokerd join")
	case api.PlaceListed:
		all = append(all, "to make it a member, on it: pim-brokerd join")
	}
	if b.Low {
		all = append(all, "disk almost full")
	}
	if b.Ahead > broker.MaxSkew || b.Ahead < -broker.MaxSkew {
		all = append(all, "check its clock")
	}
	for _, name := range slices.Sorted(maps.Keys(b.Told)) {
		all = append(all, fmt.Sprintf("%s tells it: %s", name, b.Told[name]))
	}
	if b.Why != "" {
		all = append(all, b.Why)
	}
	return all
}

// doorJSON is one broker in `cluster status -o json` when none answers for the cluster.
type doorJSON struct {
	Name      statement.BrokerName `json:"name"`
	Address   string               `json:"address"`
	Reachable bool                 `json:"reachable"`
	Why       string               `json:"why"`
}

// clusterDown tells which brokers can be reached when none answers for the cluster. It asks nothing that needs to be
// believed: whether a broker of the pinned policy shakes hands, and whether it says that it can answer.
func (d *desk) clusterDown(ctx context.Context, cause error) error {
	p, err := d.pinned()
	if err != nil {
		return err
	}
	doors := knockAll(ctx, p)
	if d.json() {
		return errors.Join(d.term.JSON(map[string]any{"brokers": doors}), cause)
	}
	var rows [][]string
	for _, door := range doors {
		rows = append(rows, []string{string(door.Name), map[bool]string{true: "yes", false: "no"}[door.Reachable], door.Why})
	}
	d.term.Table([]string{"BROKER", "ANSWERS", "NOTE"}, rows)
	return cause
}

// knockAll knocks at every broker's door, side by side.
func knockAll(ctx context.Context, p pin) []doorJSON {
	listed := p.chain.Current().Brokers
	doors := make([]doorJSON, len(listed))
	var knocking sync.WaitGroup
	for i, name := range slices.Sorted(maps.Keys(listed)) {
		knocking.Go(func() { doors[i] = knock(ctx, p, name) })
	}
	knocking.Wait()
	return doors
}

// knock asks one broker whether it can answer.
func knock(ctx context.Context, p pin, name statement.BrokerName) doorJSON {
	doc := *p.chain.Current()
	door := doorJSON{Name: name, Address: doc.Brokers[name].Address}
	doc.Brokers = map[statement.BrokerName]policy.Broker{name: doc.Brokers[name]}
	client, err := api.NewClient(api.Config{Policy: &doc})
	if err == nil {
		defer client.Close()
		err = client.Health(ctx)
	}
	door.Reachable = err == nil
	switch {
	case errors.Is(err, api.ErrNotReady):
		door.Reachable, door.Why = true, "it cannot answer for the cluster"
	case err != nil:
		door.Why = err.Error()
	}
	return door
}
