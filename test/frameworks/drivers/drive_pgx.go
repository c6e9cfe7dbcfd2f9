// Does as it is told, one line of standard input after the other.
package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/jackc/pgx/v5/pgconn"
)

func main() {
	ctx := context.Background()
	primary, err := primaryPool(ctx)
	if err != nil {
		panic(err)
	}
	newPool := standbyPool
	if len(os.Args) > 1 {
		newPool = boundedPool
	}
	standby, err := newPool(ctx)
	if err != nil {
		panic(err)
	}
	sessions := map[string]*Session{}
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		var verb, name string
		var id, n int
		if _, err := fmt.Sscan(lines.Text(), &verb, &name, &id); err != nil {
			panic(err)
		}
		if sessions[name] == nil {
			sessions[name] = &Session{}
		}
		ctx := context.WithValue(ctx, sessionKey{}, sessions[name])
		if verb == "write" {
			err = write(ctx, primary, id)
		} else {
			n, err = read(ctx, standby, id)
		}
		var failed *pgconn.PgError
		switch {
		case errors.As(err, &failed):
			fmt.Println("error", failed.Code)
		case err != nil:
			panic(err)
		case verb == "write":
			fmt.Println("ok")
		default:
			fmt.Println(n)
		}
	}
}
