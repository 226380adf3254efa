// Proof verifies a checkpoint, or a .tlog-proof file of an entry, under a policy, with torchwood.
//
//	proof POLICY CHECKPOINT
//	proof POLICY PROOF ENTRY
//
// It exits with 1, and one line on standard error, when it does not verify.
package main

import (
	"fmt"
	"os"

	"filippo.io/torchwood"
	"golang.org/x/mod/sumdb/tlog"
)

func main() {
	if err := verify(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "proof:", err)
		os.Exit(1)
	}
}

func verify(names []string) error {
	if len(names) < 2 || len(names) > 3 {
		return fmt.Errorf("%d arguments: POLICY CHECKPOINT, or POLICY PROOF ENTRY", len(names))
	}
	files := make([][]byte, len(names))
	for i, name := range names {
		var err error
		if files[i], err = os.ReadFile(name); err != nil {
			return err
		}
	}
	policy, err := torchwood.ParsePolicy(files[0])
	if err != nil {
		return err
	}
	if len(files) == 2 {
		_, _, err = torchwood.VerifyCheckpoint(files[1], policy)
		return err
	}
	return torchwood.VerifyProof(policy, tlog.RecordHash(files[2]), files[1])
}
