package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/go-json-experiment/json"

	"pim-ssh/broker"
	"pim-ssh/broker/statement"
)

// dossierSuffix marks a grant's dossier in the runtime directory: what proves the certificate beside it.
const dossierSuffix = ".dossier"

// keepDossier keeps what proves a grant, so that `pim-ssh ssh` needs no broker while the certificate lasts.
func (d *desk) keepDossier(stem broker.Stem, dossier broker.Dossier) error {
	path, err := d.keyPath(stem)
	if err != nil {
		return err
	}
	data, err := json.Marshal(dossier)
	if err != nil {
		return fmt.Errorf("keeping the dossier: %w", err)
	}
	return writeFile(path+dossierSuffix, data, 0o600)
}

// keptGrants reads and verifies again what keepDossier wrote; what proves no grant of the person's is passed over, and
// what is over is removed.
func (c *contact) keptGrants() ([]reading, error) {
	dir, err := c.runtimeDir()
	if err != nil {
		return nil, err
	}
	paths, err := filepath.Glob(filepath.Join(dir, "g-*"+dossierSuffix))
	if err != nil {
		return nil, err
	}
	var kept []reading
	for _, path := range paths {
		data, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		var dossier broker.Dossier
		if statement.DecodeStrict(data, &dossier) != nil {
			continue
		}
		r, err := readDossier(c.pin, dossier, c.clock())
		if err != nil || r.grant == nil || r.grant.Person != c.person {
			continue
		}
		if c.clock() >= r.grant.Until {
			c.drop(r.stem())
			continue
		}
		kept = append(kept, r)
	}
	return kept, nil
}
