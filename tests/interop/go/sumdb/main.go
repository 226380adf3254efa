// Sumdb reads a tlog over HTTP with the packages of Go's checksum database, and judges its proofs.
//
// It takes one question as JSON on standard input and gives one answer on standard output; it exits
// with 1, and one line on standard error, when a signature or a tile does not verify.
package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// A tile of tlog-tiles is 2**8 hashes wide, which package tlog calls its height.
const tileHeight = 8

type question struct {
	URL     string        // of the log
	Vkey    string        // its Ed25519 key
	Records []int64       // of which leaves the log's inclusion is to be proven from its tiles
	Trees   []int64       // of which earlier sizes the root hash and the consistency are
	Proofs  []recordProof // as the log gave them, to be judged
	Growth  []treeProof   // as the log gave them, to be judged
	Notes   [][]byte      // to be judged
}

type recordProof struct {
	Index, Size int64
	Root        tlog.Hash
	Entry       []byte
	Proof       tlog.RecordProof
}

type treeProof struct {
	Old, Size     int64
	OldRoot, Root tlog.Hash
	Proof         tlog.TreeProof
}

type answer struct {
	Size    int64
	Root    tlog.Hash
	Records []recordProof
	Trees   []treeProof
	// For each proof or note: why it does not hold, or nothing.
	Proofs, Growth, Notes []string
}

func main() {
	var asked question
	if err := json.NewDecoder(os.Stdin).Decode(&asked); err != nil {
		fail(err)
	}
	found, err := answerTo(&asked)
	if err != nil {
		fail(err)
	}
	if err := json.NewEncoder(os.Stdout).Encode(found); err != nil {
		fail(err)
	}
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "sumdb:", err)
	os.Exit(1)
}

func answerTo(asked *question) (*answer, error) {
	verifier, err := note.NewVerifier(asked.Vkey)
	if err != nil {
		return nil, err
	}
	verifiers := note.VerifierList(verifier)
	checkpoint, err := get(asked.URL + "/checkpoint")
	if err != nil {
		return nil, err
	}
	tree, err := open(checkpoint, verifiers)
	if err != nil {
		return nil, err
	}
	found := &answer{Size: tree.N, Root: tree.Hash}
	// It checks every tile against the root hash before it gives anything out of it.
	hashes := tlog.TileHashReader(tree, reader{asked.URL})
	if err := found.prove(asked, tree, hashes); err != nil {
		return nil, err
	}
	for _, it := range asked.Proofs {
		leaf := tlog.RecordHash(it.Entry)
		found.Proofs = append(found.Proofs, reason(tlog.CheckRecord(it.Proof, it.Size, it.Root, it.Index, leaf)))
	}
	for _, it := range asked.Growth {
		found.Growth = append(found.Growth, reason(tlog.CheckTree(it.Proof, it.Size, it.Root, it.Old, it.OldRoot)))
	}
	for _, text := range asked.Notes {
		_, err := open(text, verifiers)
		found.Notes = append(found.Notes, reason(err))
	}
	return found, nil
}

// prove makes proofs out of the log's tiles, and checks them.
func (found *answer) prove(asked *question, tree tlog.Tree, hashes tlog.HashReader) error {
	for _, index := range asked.Records {
		proof, err := tlog.ProveRecord(tree.N, index, hashes)
		if err != nil {
			return fmt.Errorf("record %d: %w", index, err)
		}
		leaf, err := hashes.ReadHashes([]int64{tlog.StoredHashIndex(0, index)})
		if err != nil {
			return fmt.Errorf("leaf %d: %w", index, err)
		}
		if err := tlog.CheckRecord(proof, tree.N, tree.Hash, index, leaf[0]); err != nil {
			return fmt.Errorf("record %d: %w", index, err)
		}
		found.Records = append(found.Records, recordProof{Index: index, Size: tree.N, Root: tree.Hash, Proof: proof})
	}
	for _, size := range asked.Trees {
		root, err := tlog.TreeHash(size, hashes)
		if err != nil {
			return fmt.Errorf("tree of %d: %w", size, err)
		}
		proof, err := tlog.ProveTree(tree.N, size, hashes)
		if err != nil {
			return fmt.Errorf("tree of %d: %w", size, err)
		}
		if err := tlog.CheckTree(proof, tree.N, tree.Hash, size, root); err != nil {
			return fmt.Errorf("tree of %d: %w", size, err)
		}
		found.Trees = append(found.Trees, treeProof{Old: size, Size: tree.N, OldRoot: root, Root: tree.Hash, Proof: proof})
	}
	return nil
}

// open verifies a checkpoint and reads it.
func open(text []byte, verifiers note.Verifiers) (tlog.Tree, error) {
	signed, err := note.Open(text, verifiers)
	if err != nil {
		return tlog.Tree{}, err
	}
	lines := strings.Split(signed.Text, "\n")
	if len(lines) != 4 || lines[3] != "" {
		return tlog.Tree{}, fmt.Errorf("a checkpoint of %d lines", len(lines)-1)
	}
	size, err := strconv.ParseInt(lines[1], 10, 64)
	if err != nil {
		return tlog.Tree{}, err
	}
	hash, err := tlog.ParseHash(lines[2])
	return tlog.Tree{N: size, Hash: hash}, err
}

// reader fetches tiles.
type reader struct{ url string }

func (r reader) Height() int { return tileHeight }

func (r reader) ReadTiles(tiles []tlog.Tile) ([][]byte, error) {
	data := make([][]byte, len(tiles))
	for i, tile := range tiles {
		// The checksum database has the height in its paths, tlog-tiles has not.
		path, ok := strings.CutPrefix(tile.Path(), fmt.Sprintf("tile/%d/", tileHeight))
		if !ok {
			return nil, fmt.Errorf("unexpected tile %s", tile.Path())
		}
		var err error
		if data[i], err = get(r.url + "/tile/" + path); err != nil {
			return nil, err
		}
	}
	return data, nil
}

func (r reader) SaveTiles([]tlog.Tile, [][]byte) {}

func get(url string) ([]byte, error) {
	response, err := http.Get(url)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %s", url, response.Status)
	}
	return io.ReadAll(response.Body)
}

func reason(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
