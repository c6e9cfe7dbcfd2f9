# Medians and quartiles
set output "replay.svg"
set title "CPU of the startup process for the same WAL (median, quartiles)"
set ylabel "ms"
# room for the whiskers
set yrange [0:*]
set offsets 0, 0, graph 0.08, 0
unset key
set boxwidth 0.5
plot 'replay.csv' using 0:($4 / 1000):(color(strcol(2))):xtic(2) every ::1 with boxes lc rgb variable, \
	'' using 0:($5 / 1000):(0):(($6 - $5) / 1000) every ::1 with vectors heads size 0.05,90 lw 2 lc rgb "black"
