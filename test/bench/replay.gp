# Medians and quartiles
set output "replay.svg"
set title "CPU of the startup process for the same WAL (median, quartiles)"
set ylabel "ms"
set yrange [0:*]
unset key
set boxwidth 0.5
plot 'replay.csv' using 0:($4 / 1000):(color(strcol(2))):xtic(2) every ::1 with boxes lc rgb variable, \
	'' using 0:($4 / 1000):($5 / 1000):($6 / 1000) every ::1 with yerrorbars pt -1 lw 2 lc rgb "black"
