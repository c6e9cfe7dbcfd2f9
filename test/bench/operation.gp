# The median of each contender, for each delay of the network
set output "operation.svg"
set title "Write, learn the position, wait, read: median time of the whole operation"
set style data histograms
set style histogram clustered gap 1
set boxwidth 0.95 relative
set logscale y
set ylabel "ms"
set xtics rotate by -30 font ",11"
set bmargin 9
set rmargin 8
set key above title "network delay each way"
pivot = "< awk -F, 'NR > 1 { if (!($2 in seen)) seen[order[++n] = $2]; t[$2, $1] = $4 / 1000 } \
	END { for (i = 1; i <= n; i++) if (order[i] != \"a prepared SELECT 1\") \
		print order[i] \",\" t[order[i], \"0 ms\"] \",\" t[order[i], \"0.5 ms\"] \",\" t[order[i], \"2 ms\"] }' operation.csv"
plot pivot using 2:xtic(1) title "0 ms" lc rgb "#9ecae1", '' using 3 title "0.5 ms" lc rgb "#4292c6", '' using 4 title "2 ms" lc rgb "#08519c"
