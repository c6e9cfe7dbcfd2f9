# What the primary does to the tables of a statement that is about to wait, for the
# tests of that.

package LsnDdl;

use strict;
use warnings;

use Exporter 'import';

our @EXPORT = qw(%changes $make $ask $ask_with);

# What is done, and what the statement then says is the answer of the primary, or its
# error.
our %changes = (
	'VACUUM' => "UPDATE d SET i = i + 1;\nVACUUM d",
	'VACUUM that truncates' => "DELETE FROM d WHERE i > 10;\nVACUUM d",
	'VACUUM FULL' => 'VACUUM FULL d',
	'ANALYZE' => 'ANALYZE d',
	'TRUNCATE' => "TRUNCATE d;\nINSERT INTO d VALUES (1)",
	'ADD COLUMN' => 'ALTER TABLE d ADD COLUMN x int DEFAULT 7',
	'ALTER TYPE' => 'ALTER TABLE d ALTER COLUMN l TYPE numeric USING l * 1.5',
	'DROP COLUMN' => 'ALTER TABLE d DROP COLUMN k',
	'DROP INDEX' => 'DROP INDEX d_i',
	'CREATE INDEX' => 'CREATE INDEX ON d (j)',
	'REINDEX' => 'REINDEX INDEX d_i',
	'DROP TABLE' => 'DROP TABLE d CASCADE',
	'a policy' => "CREATE POLICY p ON d USING (i > 100);\nALTER TABLE d ENABLE ROW LEVEL SECURITY;\nALTER TABLE d FORCE ROW LEVEL SECURITY",
	'a view' => 'CREATE OR REPLACE VIEW w AS SELECT i, j FROM d WHERE i < 50',
	'a partition attached' => 'ALTER TABLE parts ATTACH PARTITION apart FOR VALUES FROM (1000) TO (2000)',
	'a partition detached' => 'ALTER TABLE parts DETACH PARTITION part',
	'a child' => "CREATE TABLE child () INHERITS (d);\nINSERT INTO child VALUES (1, 1, 1)",
	'a function' => q{CREATE OR REPLACE FUNCTION f() RETURNS int STABLE LANGUAGE sql AS 'SELECT 2'},
	'a constraint' => 'ALTER TABLE d ADD CHECK (i >= 0)');

# One column, so that it stays the same whatever is done to the tables
our $ask = "SELECT concat_ws(' ', (SELECT count(*) FROM d), (SELECT sum(l) FROM d), (SELECT sum(i) FROM d WHERE i BETWEEN 5 AND 500), (SELECT count(*) FROM w), (SELECT count(*) FROM parts), f())";
our $ask_with = $ask =~ s/500/\$1/r;
our $make = <<'SQL';
DROP TABLE IF EXISTS d, parts, apart, part, child CASCADE;
CREATE TABLE d (i int, j int, k int, l int);
INSERT INTO d SELECT i, i, i, i FROM generate_series(1, 1000) i;
CREATE INDEX d_i ON d (i);
CREATE VIEW w AS SELECT i, j FROM d;
CREATE TABLE parts (i int) PARTITION BY RANGE (i);
CREATE TABLE part PARTITION OF parts FOR VALUES FROM (0) TO (1000);
CREATE TABLE apart (i int);
INSERT INTO part SELECT generate_series(0, 99);
INSERT INTO apart SELECT generate_series(1000, 1009);
CREATE OR REPLACE FUNCTION f() RETURNS int STABLE LANGUAGE sql AS 'SELECT 1';
SQL

1;
