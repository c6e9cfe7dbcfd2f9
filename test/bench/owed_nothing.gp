# Transactions a second, without and with the library: medians and quartiles
set output "owed_nothing.svg"
set title "Owed nothing: pgbench -S -M prepared, transactions a second (median, quartiles)"
set style data histograms
set style histogram errorbars gap 1 lw 2
set boxwidth 0.95 relative
set ylabel "transactions a second"
set yrange [0:*]
set key above
of(with) = sprintf("< awk -F, -v OFS=, '$2 == \"%s\" { print $1, 1e6 / $4, 1e6 / $6, 1e6 / $5 }' owed_nothing.csv", with)
plot of("without") using 2:3:4:xtic(1) title "without" lc rgb others, of("the library") using 2:3:4 title "with the library" lc rgb ours
