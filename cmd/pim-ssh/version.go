package main

import (
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// version is set by the build (-ldflags "-X main.version=…").
var version = "dev"

func versionCommand(d *desk) *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "print which pim-ssh this is",
		Args:  none("pim-ssh version"),
		RunE: func(*cobra.Command, []string) error {
			if d.json() {
				return d.term.JSON(map[string]string{"version": version, "commit": commit(), "go": runtime.Version()})
			}
			d.term.Result("pim-ssh %s %s %s", version, commit(), runtime.Version())
			return nil
		},
	}
}

func commit() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	for _, setting := range info.Settings {
		if setting.Key == "vcs.revision" {
			return setting.Value
		}
	}
	return "unknown"
}
