# Reads a second, and how long one takes, by the number of clients
set terminal svg noenhanced size 960,900 font "sans-serif,13" background rgb "white"
set output "strong.svg"
set multiplot layout 2,2
set logscale x
set xlabel "clients"
set xrange [1:250]
set xtics (1, 4, 32, 100, 200)
of(primary, contender) = sprintf("< awk -F, '$1 == \"%s\" && $3 == \"%s\"' strong.csv", primary, contender)
names = '"strong" "bounded by 200 ms" "eventual" "on the primary" "position; WAIT FOR LSN; read"'
rgb(i) = i <= 2 ? ours : i == 5 ? theirs : others
dash(i) = i == 2 || i == 4 ? 2 : 1
point(i) = i == 2 || i == 4 ? 6 : 7
do for [load in '"idle" "others commit at full speed"'] {
	where = load eq "idle" ? "idle primary" : "four others commit at full speed"
	unset key
	unset logscale y
	set yrange [0:*]
	set title "Reads a second, ".where
	set ylabel "reads a second, median"
	plot for [i = 1:words(names)] of(load, word(names, i)) using 2:9 with linespoints lw 2 pt point(i) dt dash(i) lc rgb rgb(i) title word(names, i)
	set key bottom right font ",11"
	set logscale y
	set yrange [*:*]
	set title "Time of a read, ".where
	set ylabel "ms, median"
	plot for [i = 1:words(names)] of(load, word(names, i)) using 2:($10 / 1000) with linespoints lw 2 pt point(i) dt dash(i) lc rgb rgb(i) title word(names, i)
}
unset multiplot
